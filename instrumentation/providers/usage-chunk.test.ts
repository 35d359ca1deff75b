import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { limits } from '../limits.ts'
import { askForUsage, openUsageChunkFilter } from './usage-chunk.ts'

const recorded = readFileSync(new URL('fixtures/openai-chat.sse', import.meta.url))

function filtered(pieces: readonly Uint8Array[], provider = 'groq'): Buffer {
  const filter = openUsageChunkFilter(provider)
  return Buffer.concat([...pieces.flatMap((piece) => [...filter.write(piece)]), ...filter.end()])
}

describe('usage chunk', () => {
  test('is asked for in front of a body that says nothing, and set in one that says no', () => {
    const body = '{ "model":"m","stream":true,"seed":12345678901234567890,"x":1.0}'
    expect(askForUsage(body)).toBe(`{"stream_options":{"include_usage":true},${body.slice(1)}`)
    expect(JSON.parse(askForUsage('{"stream":true,"stream_options":{"include_usage":false,"a":1}}') ?? '')).toEqual({
      stream: true,
      stream_options: { include_usage: true, a: 1 },
    })
    expect(JSON.parse(askForUsage('{"stream":true,"stream_options":null}') ?? '')).toMatchObject({
      stream_options: { include_usage: true },
    })
  })

  test('is not asked for where nothing streams, or where the body is not understood', () => {
    for (const body of ['{"stream":false}', '{}', '[]', '"{"', 'no', '', '{"stream":true,"stream_options":5}'])
      expect(askForUsage(body), body).toBe(undefined)
  })

  test('alone is taken out, wherever the stream is cut', () => {
    for (const separator of ['\n\n', '\r\n\r\n']) {
      const text = recorded.toString().replaceAll('\n\n', separator)
      const events = text.split(separator)
      const wanted = [...events.slice(0, -3), ...events.slice(-2)].join(separator)
      expect(wanted.length).toBe(text.length - (events.at(-3)?.length ?? 0) - separator.length)
      const bytes = Buffer.from(text)
      for (let at = 0; at <= bytes.length; at++) {
        const parts = filtered([bytes.subarray(0, at), bytes.subarray(at)]).toString()
        expect(parts).toBe(wanted)
      }
      expect(filtered(Array.from(bytes, (byte) => Uint8Array.of(byte))).toString()).toBe(wanted)
    }
  })

  test('asked of OpenAI or Azure, takes the empty usage of all other chunks with it, wherever the stream is cut', () => {
    const unasked = recorded.toString().replaceAll(',"usage":null', '')
    const events = unasked.split('\n\n')
    const wanted = [...events.slice(0, -3), ...events.slice(-2)].join('\n\n')
    const said = '{"choices":[{"delta":{"content":"x,\\"usage\\":null"}}],"usage":null,"obfuscation":"y"}'
    for (const provider of ['openai', 'azure.ai.openai']) {
      for (let at = 0; at <= recorded.length; at++)
        expect(filtered([recorded.subarray(0, at), recorded.subarray(at)], provider).toString()).toBe(wanted)
      expect(filtered([Buffer.from(`data: ${said}\n\n`)], provider).toString()).toBe(
        'data: {"choices":[{"delta":{"content":"x,\\"usage\\":null"}}],"obfuscation":"y"}\n\n',
      )
    }
    expect(filtered([recorded]).toString()).toContain(',"usage":null')
  })

  test('of a stream that is cut, all that came is passed on, save a whole usage chunk', () => {
    const chunkEnd = recorded.lastIndexOf('data: [DONE]')
    const chunkStart = recorded.lastIndexOf('data: ', chunkEnd - 1)
    for (let at = 0; at < chunkEnd; at++) expect(filtered([recorded.subarray(0, at)])).toEqual(recorded.subarray(0, at))
    expect(filtered([recorded.subarray(0, chunkEnd)])).toEqual(recorded.subarray(0, chunkStart))
  })

  test('whole events are never held, and a long one passes before its end', () => {
    const filter = openUsageChunkFilter('groq')
    const event = Buffer.from('data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
    expect(Buffer.concat([...filter.write(event)])).toEqual(event)
    const long = Buffer.alloc(limits.usageEventBytesMax + 1, 'x')
    expect(Buffer.concat([...filter.write(long)])).toEqual(long)
    expect(Buffer.concat([...filter.write(Buffer.from('y'))]).toString()).toBe('y')
    expect(Buffer.concat([...filter.write(Buffer.from('\n\n')), ...filter.write(event)]).toString()).toBe(
      `\n\n${event}`,
    )
  })

  test('events without choices and usage, or with both, are the caller’s', () => {
    const others = [
      'data: {"choices":[],"prompt_filter_results":[]}\n\n',
      'data: {"choices":[],"usage":null}\n\n',
      'data: {"choices":[{"index":0}],"usage":{"prompt_tokens":1}}\n\n',
      'data: {"error":{"message":"\\"choices\\":[]"},"usage":{}}\n\n',
      'data: "choices":[] {"usage":{}}\n\n',
    ]
    for (const other of others) expect(filtered([Buffer.from(other)]).toString()).toBe(other)
  })
})
