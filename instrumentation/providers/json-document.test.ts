import { describe, expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { type JsonRead, openJsonDocument } from './json-document.ts'

const encoder = new TextEncoder()

/** Skimmed whatever its length, in pieces of `pieceBytes`. */
function skim(text: string, pieceBytes: number): JsonRead {
  const document = openJsonDocument(0)
  const bytes = encoder.encode(text)
  for (let at = 0; at < bytes.length; at += pieceBytes) document.write(bytes.subarray(at, at + pieceBytes))
  return document.end()
}

const tricky: unknown = {
  id: 'a"b\\c\n\u2028\u0000 𝄞 "[{,:}]"',
  '': [],
  '{"': { ']': null },
  usage: { prompt_tokens: 1, nested: [[[{ a: [1, -2.5e-7, true, false, null] }]]] },
  choices: [{ message: { content: '\\u00e9\\\\"', arguments: { data: 'kept: deeper than what is dropped' } } }],
}

describe('json', () => {
  test('a skimmed text is the same value, however it is cut', () => {
    for (const indent of [0, 2]) {
      const text = JSON.stringify(tricky, undefined, indent)
      for (let pieceBytes = 1; pieceBytes <= text.length; pieceBytes++)
        expect(skim(text, pieceBytes)).toEqual({ kind: 'json', value: tricky, isCut: true })
    }
  })

  test('vectors and token probabilities become null, and what stands beside them stays', () => {
    const value = {
      data: [{ embedding: [0.1, 0.2], object: 'x,"]}' }],
      choices: [{ logprobs: { content: [{ a: [1] }] }, text: 't', index: 3 }],
      usage: { total_tokens: 7 },
    }
    expect(skim(JSON.stringify(value), 3)).toMatchObject({
      value: { data: null, choices: [{ logprobs: null, text: 't', index: 3 }], usage: { total_tokens: 7 } },
    })
  })

  test('a long string is cut between escapes and characters, and all after it is read', () => {
    for (const unit of ['x', '\\n', '\\u00e9', 'é', '𝄞', 'ab\\\\']) {
      const text = `{"content":"${unit.repeat(limits.jsonSkimStringBytesMax / 2)}","usage":{"output_tokens":5}}`
      for (const pieceBytes of [4_099, text.length * 4]) {
        const read = skim(text, pieceBytes)
        expect(read).toMatchObject({ kind: 'json', value: { usage: { output_tokens: 5 } } })
      }
    }
  })

  test('many long strings leave room for the usage behind them', () => {
    const choices = Array.from({ length: 40 }, (_, index) => ({ index, text: 'y'.repeat(200_000) }))
    expect(skim(JSON.stringify({ choices, usage: { total_tokens: 9 } }), 16_384)).toMatchObject({
      kind: 'json',
      value: { usage: { total_tokens: 9 } },
    })
  })

  test('what is no JSON is broken, and shows no more than its beginning', () => {
    const document = openJsonDocument()
    document.write(encoder.encode(`<html>${'z'.repeat(10_000)}`))
    const read = document.end()
    expect(read.kind).toBe('broken')
    expect(read.kind === 'broken' && read.text.length).toBeLessThanOrEqual(limits.eventNameBytesMax)
    expect(document.end()).toEqual({ kind: 'empty' })
    for (const bad of ['{"a":', '{"a"}', '[1,]', '{"a":"\\', '"', '\\', '}{', '['.repeat(100_000)])
      expect(skim(bad, 2).kind).toBe('broken')
  })
})
