// One reply of a provider, byte by byte: what its status, type and bytes say. The bytes may be cut anywhere and stop
// anywhere; `known` can be asked at any time. Nothing here throws for anything a provider may send, and memory is bounded.
import { openMessagesReply } from './anthropic.ts'
import { openConverseReply } from './bedrock.ts'
import type { CallReply, Endpoint } from './call.ts'
import { openEmbeddingsReply } from './embeddings.ts'
import { openEventStream } from './event-stream.ts'
import { openGenerateReply } from './gemini.ts'
import { endMark, type JsonRead, openJsonDocument } from './json-document.ts'
import { openJsonElements } from './json-elements.ts'
import { isJsonObject, type Json } from './json-fields.ts'
import { openChatReply } from './openai-chat.ts'
import { openResponsesReply } from './openai-responses.ts'
import { openPlainEvents } from './plain-events.ts'
import { failureOf, onlyPiece, type ReplyReader } from './reply-reader.ts'
import { openSse } from './sse.ts'

export type ReplyHead = {
  readonly status: number
  /** By its name in lower case, '' where there is none. */
  readonly header: (name: string) => string
}

export type Reply = {
  /** Reads them before it returns, and keeps none of them. Gives whether they were events that only added letters. */
  write(bytes: Uint8Array): boolean
  /** No more bytes will come, for whatever reason. */
  end(): void
  known(): CallReply
  /** Whether something of the model has arrived. */
  hasBegun(): boolean
}

export function openReply(endpoint: Endpoint, head: ReplyHead, keepsContent: boolean): Reply {
  // A redirect that nobody followed is no answer of a model either.
  const isFailed = head.status >= 300
  // Amazon names the exception beside the body, some of its services with a URL behind a colon.
  const failureType = head.header('x-amzn-errortype').split(':')[0] || String(head.status)
  const reader = readerOf(endpoint, head, keepsContent)
  let events = 0
  let broken = 0
  let failure: CallReply['failure']

  function take(read: JsonRead, name: string, event?: Uint8Array): void {
    if (read.kind === 'broken') {
      if (read.text.trim() === endMark) reader.done()
      else broken++
      return
    }
    if (read.kind === 'empty') return
    const values = Array.isArray(read.value) ? read.value : [read.value]
    for (const value of values) {
      if (!isJsonObject(value)) broken++
      else if (isFailed) failure = failureOf(value, failureType)
      else {
        events++
        accept(value, name, event)
      }
    }
  }

  function accept(value: Json, name: string, event: Uint8Array | undefined): void {
    const { said } = reader
    if (said === undefined || event === undefined) {
      reader.accept(value, name)
      return
    }
    const piece = onlyPiece(said, () => reader.accept(value, name))
    if (piece !== undefined) plain.learn(event, piece)
  }

  const plain = openPlainEvents((piece, chars, content) => reader.said?.output.again(piece, chars, content))
  const body = openBody(endpoint, head, { take, takePlain: plain.read, onBroken: () => broken++ })

  function known(): CallReply {
    const said = reader.known()
    const own = isFailed ? (failure ?? { type: failureType, message: '' }) : said.failure
    return { ...said, failure: own, brokenEvents: broken }
  }

  return { write: body.write, end: body.end, known, hasBegun: () => events > 0 }
}

function readerOf(endpoint: Endpoint, head: ReplyHead, keepsContent: boolean): ReplyReader {
  switch (endpoint.api) {
    case 'openai.chat':
    case 'openai.completions':
      return openChatReply(endpoint.provider, keepsContent)
    case 'openai.responses':
      return openResponsesReply(endpoint.provider, keepsContent)
    case 'openai.embeddings':
    case 'gemini.embed':
      return openEmbeddingsReply(endpoint.provider, keepsContent)
    case 'anthropic.messages':
      return openMessagesReply(keepsContent)
    case 'gemini.generate':
      return openGenerateReply(keepsContent)
    case 'bedrock.converse':
      return openConverseReply(keepsContent, head.header('x-amzn-requestid'))
    default:
      return endpoint.api satisfies never
  }
}

const noPayload: JsonRead = { kind: 'json', value: {}, isCut: false }

type Body = { write(bytes: Uint8Array): boolean; end(): void }
type Taking = {
  readonly take: (read: JsonRead, name: string, event?: Uint8Array) => void
  readonly takePlain: (bytes: Uint8Array, at: number) => number
  readonly onBroken: () => void
}

function openBody(endpoint: Endpoint, head: ReplyHead, { take, takePlain, onBroken }: Taking): Body {
  const type = head.header('content-type').toLowerCase()
  if (type.includes('text/event-stream')) return openSse((name, data, event) => take(data, name, event), takePlain)
  if (type.includes('application/vnd.amazon.eventstream')) {
    const events = openEventStream(({ messageType, name, data }) => {
      if (messageType === 'event') take(data, name)
      // An error may come without a payload, and is one by its message type, whatever its name.
      else take(data.kind === 'json' ? data : noPayload, name.endsWith('Exception') ? name : `${name}Exception`)
    }, onBroken)
    return { write: parsed(events.write), end: () => undefined }
  }
  if (endpoint.api === 'gemini.generate' && endpoint.isStream === true) {
    const elements = openJsonElements((element) => take(element, ''))
    return { write: parsed(elements.write), end: elements.end }
  }
  const document = openJsonDocument()
  return { write: parsed(document.write), end: () => take(document.end(), '') }
}

function parsed(write: (bytes: Uint8Array) => void): Body['write'] {
  return (bytes) => {
    write(bytes)
    return false
  }
}
