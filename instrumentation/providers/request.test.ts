import { describe, expect, test } from 'vitest'
import type { CallRequest, Endpoint } from './call.ts'
import { readRequest } from './request.ts'

function read(api: Endpoint['api'], body: object, more: Partial<Endpoint> = {}): CallRequest {
  const endpoint: Endpoint = { api, provider: '', model: '', isStream: undefined, takesUsageOption: false, ...more }
  const text = readRequest(endpoint, JSON.stringify(body))
  const bytes = readRequest(endpoint, new TextEncoder().encode(JSON.stringify(body)))
  const said = ({ content, tools, ...rest }: CallRequest): object => ({ ...rest, ...content(), tools: tools() })
  expect(said(bytes.request)).toEqual(said(text.request))
  return text.request
}

describe('request', () => {
  test('the model of Gemini is that of the address, whatever the body says of it', () => {
    const body = { model: 'models/gemini-embedding-001', content: { parts: [{ text: 'Hi' }] } }
    expect(read('gemini.embed', body, { model: 'gemini-embedding-001' }).model).toBe('gemini-embedding-001')
  })

  test('chat completions: settings, bound of all choices, messages, tools', () => {
    const request = read('openai.chat', {
      model: 'gpt-4o',
      stream: true,
      n: 2,
      max_completion_tokens: 100,
      max_tokens: 7,
      temperature: 0,
      stop: 'END',
      seed: 1,
      reasoning_effort: 'low',
      stream_options: { include_usage: true },
      tools: [{ type: 'function', function: { name: 'f' } }],
      messages: [
        { role: 'system', content: 'Be brief.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is it?' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } },
            { type: 'image_url', image_url: { url: 'https://x/y.png' } },
          ],
        },
        { role: 'assistant', content: null, tool_calls: [{ id: 't', function: { name: 'f', arguments: '{"a":1}' } }] },
        { role: 'tool', tool_call_id: 't', content: 'ok' },
      ],
    })
    expect(request).toMatchObject({
      operation: 'chat',
      model: 'gpt-4o',
      isStream: true,
      outputTokensMax: 200,
      temperature: 0,
      stopSequences: ['END'],
      reasoningLevel: 'low',
      asksForUsage: true,
    })
    expect({ ...request.content(), tools: request.tools() }).toMatchObject({
      messages: [
        { role: 'system', parts: [{ type: 'text', content: 'Be brief.' }] },
        {
          role: 'user',
          parts: [
            { type: 'text', content: 'What is it?' },
            { type: 'blob', modality: 'image', mime_type: 'image/png' },
            { type: 'uri', modality: 'image', uri: 'https://x/y.png' },
          ],
        },
        { role: 'assistant', parts: [{ type: 'tool_call', id: 't', name: 'f', arguments: { a: 1 } }] },
        { role: 'tool', parts: [{ type: 'tool_call_response', id: 't', response: 'ok' }] },
      ],
      tools: [{ type: 'function' }],
    })
  })

  test('responses, messages, generateContent and converse say the same in their own words', () => {
    const responses = read('openai.responses', {
      model: 'o4-mini',
      instructions: 'S',
      max_output_tokens: 9,
      previous_response_id: 'r0',
      conversation: { id: 'conv' },
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Q' }] },
        { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' },
        { type: 'function_call_output', call_id: 'c', output: 'R' },
      ],
    })
    const messages = read('anthropic.messages', {
      model: 'claude',
      system: [{ type: 'text', text: 'S' }],
      max_tokens: 9,
      messages: [
        { role: 'user', content: 'Q' },
        { role: 'assistant', content: [{ type: 'tool_use', id: 'c', name: 'f', input: {} }] },
        { role: 'tool', content: [{ type: 'tool_result', tool_use_id: 'c', content: 'R' }] },
      ],
    })
    const converse = read(
      'bedrock.converse',
      {
        system: [{ text: 'S' }],
        inferenceConfig: { maxTokens: 9 },
        messages: [
          { role: 'user', content: [{ text: 'Q' }] },
          { role: 'assistant', content: [{ toolUse: { toolUseId: 'c', name: 'f', input: {} } }] },
          { role: 'tool', content: [{ toolResult: { toolUseId: 'c', content: 'R' } }] },
        ],
      },
      { model: 'amazon.nova', isStream: true },
    )
    const said = {
      system: [{ type: 'text', content: 'S' }],
      messages: [
        { role: 'user', parts: [{ type: 'text', content: 'Q' }] },
        { role: 'assistant', parts: [{ type: 'tool_call', id: 'c', name: 'f', arguments: {} }] },
        { role: 'tool', parts: [{ type: 'tool_call_response', id: 'c', response: 'R' }] },
      ],
    }
    for (const request of [responses, messages, converse]) {
      expect(request.content()).toMatchObject(said)
      expect(request.outputTokensMax).toBe(9)
    }
    expect(responses).toMatchObject({ previousResponseId: 'r0', conversationId: 'conv' })
    expect(converse).toMatchObject({ model: 'amazon.nova', isStream: true })
    const gemini = read(
      'gemini.generate',
      {
        systemInstruction: { parts: [{ text: 'S' }] },
        generationConfig: { maxOutputTokens: 9, candidateCount: 3, topK: 4 },
        contents: [
          { role: 'user', parts: [{ text: 'Q' }, { inlineData: { mimeType: 'audio/wav', data: 'AAAA' } }] },
          { role: 'model', parts: [{ functionCall: { name: 'f', args: {} } }] },
          { role: 'user', parts: [{ functionResponse: { name: 'f', response: { r: 1 } } }] },
        ],
      },
      { model: 'gemini-2.5-flash', isStream: false },
    )
    expect(gemini).toMatchObject({
      model: 'gemini-2.5-flash',
      outputTokensMax: 27,
      topK: 4,
      operation: 'generate_content',
    })
    expect(gemini.content().messages).toMatchObject([
      { role: 'user', parts: [{ content: 'Q' }, { type: 'blob', modality: 'audio', mime_type: 'audio/wav' }] },
      { role: 'assistant', parts: [{ type: 'tool_call', name: 'f' }] },
      { role: 'user', parts: [{ type: 'tool_call_response', id: 'f', response: { r: 1 } }] },
    ])
  })

  test('media in the results of tools are named as in messages, and their bytes are not kept', () => {
    const url = 'data:image/png;base64,AAAA'
    const image = { type: 'blob', modality: 'image', mime_type: 'image/png' }
    const result = (response: unknown): object => ({ type: 'tool_call_response', id: 'c', response })
    const partsOf = (request: CallRequest): unknown => request.content().messages.flatMap(({ parts }) => parts)
    const messages = read('anthropic.messages', {
      messages: [
        {
          role: 'user',
          content: [
            {
              type: 'tool_result',
              tool_use_id: 'c',
              content: [
                { type: 'text', text: 'Seen.' },
                { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AAAA' } },
                { type: 'tool_reference', tool_name: 'f' },
              ],
            },
          ],
        },
      ],
    })
    expect(partsOf(messages)).toEqual([result([{ type: 'text', text: 'Seen.' }, image, { type: 'tool_reference' }])])
    const converse = read('bedrock.converse', {
      messages: [
        {
          role: 'user',
          content: [{ toolResult: { toolUseId: 'c', content: [{ json: { a: 1 } }, { image: { format: 'png' } }] } }],
        },
      ],
    })
    expect(partsOf(converse)).toEqual([result([{ json: { a: 1 } }, image])])
    const responses = read('openai.responses', {
      input: [
        { type: 'function_call_output', call_id: 'c', output: [{ type: 'input_image', image_url: url }] },
        { type: 'computer_call_output', call_id: 'c', output: { type: 'computer_screenshot', image_url: url } },
      ],
    })
    expect(partsOf(responses)).toEqual([result([image]), result([image])])
    const chat = read('openai.chat', {
      messages: [
        {
          role: 'tool',
          tool_call_id: 'c',
          content: [
            { type: 'text', text: 'Seen.' },
            { type: 'image_url', image_url: { url } },
          ],
        },
      ],
    })
    expect(partsOf(chat)).toEqual([result('Seen.'), image])
    const functionResponse = {
      id: 'c',
      name: 'f',
      response: { r: 1 },
      parts: [{ inlineData: { mimeType: 'image/png', data: 'AAAA' } }],
    }
    const gemini = read('gemini.generate', { contents: [{ role: 'user', parts: [{ functionResponse }] }] })
    expect(partsOf(gemini)).toEqual([result({ r: 1 }), image])
  })

  test('embeddings write nothing; a bound that was not set is unknown', () => {
    expect(read('openai.embeddings', { model: 'e', input: 'x', dimensions: 256 })).toMatchObject({
      operation: 'embeddings',
      outputTokensMax: 0,
      embeddingDimensions: 256,
    })
    expect(read('openai.chat', { model: 'm' }).outputTokensMax).toBe(undefined)
  })

  test('a body that is not understood leaves what the URL says', () => {
    const endpoint: Endpoint = {
      api: 'openai.chat',
      provider: '',
      model: 'deployed',
      isStream: true,
      takesUsageOption: false,
    }
    for (const body of ['', 'no', '[]', 'null', '{"model":', Uint8Array.of(0xff, 0x00)])
      expect(readRequest(endpoint, body)).toMatchObject({
        kind: 'broken',
        request: { model: 'deployed', isStream: true },
      })
    const odd = { model: 7, messages: { a: 1 }, n: 'x', stop: [1], tools: 5, stream: 'yes', max_tokens: null }
    const read = readRequest({ ...endpoint, isStream: undefined }, JSON.stringify(odd))
    expect(read).toMatchObject({ kind: 'request', request: { model: 'deployed', isStream: false, stopSequences: [] } })
    expect(read.request.content()).toEqual({ system: [], messages: [] })
    expect(read.request.tools()).toEqual([])
  })

  test('a body of 30 MB with an image is read without it', () => {
    const body = `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,${'A'.repeat(30_000_000)}"}},{"type":"text","text":"?"}]}],"model":"gpt-4o"}`
    const endpoint: Endpoint = {
      api: 'openai.chat',
      provider: '',
      model: '',
      isStream: undefined,
      takesUsageOption: false,
    }
    const { request } = readRequest(endpoint, body)
    expect(request.model).toBe('gpt-4o')
    expect(request.content().messages).toMatchObject([
      { parts: [{ type: 'blob', mime_type: 'image/png' }, { content: '?' }] },
    ])
  })
})
