// Texts of content on their way to where they are kept once: facts carry hash, size and preview, the text goes beside them.
import { hash } from 'node:crypto'
import { limits } from '../limits.ts'
import type { Content } from './fact.ts'

/** `metadata`: sizes are kept, and neither texts nor anything made of them. */
export type ContentPolicy = 'full' | 'metadata'

export type Contents = {
  readonly keep: (text: string) => Content
  /** Hash → text, as far as the policy keeps texts. */
  readonly texts: ReadonlyMap<string, string>
}

export function openContents(policy: ContentPolicy): Contents {
  const texts = new Map<string, string>()
  return {
    texts,
    keep: (text) => {
      const bytes = Buffer.byteLength(text)
      if (policy === 'metadata') return { hash: '', bytes, preview: '' }
      const textHash = hashOf(text)
      texts.set(textHash, text)
      return { hash: textHash, bytes, preview: previewOf(text) }
    },
  }
}

/** 128 bits of SHA-256, in hex: texts that collide have to be searched for, and only in one's own tenant. */
export function hashOf(text: string): string {
  return hash('sha256', text, 'hex').slice(0, 32)
}

/** Such a text stands in each row that shows it, and nowhere else. */
export function isWholeInPreview(text: string): boolean {
  return text.length <= limits.contentPreviewCharsMax
}

function previewOf(text: string): string {
  if (isWholeInPreview(text)) return text.toWellFormed()
  const { contentPreviewCharsMax: charsMax } = limits
  // Half a surrogate pair at the end would be stored as a replacement character.
  const end = isHighSurrogate(text.charCodeAt(charsMax - 1)) ? charsMax - 1 : charsMax
  // A slice alone would hold on to the whole text for as long as the fact is remembered; one of a joined text has its own.
  return ` ${text.slice(0, end)}`.slice(1).toWellFormed()
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdbff
}
