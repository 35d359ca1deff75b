// What a request says, in OpenTelemetry's shape of messages, from each provider's own. Media are named, never carried.
import { isMedia, type Message, type Part, type RequestContent } from './call.ts'
import { isJsonObject, type Json, objectOf, objectsOf, parsedOr, textOf } from './json-fields.ts'

const text = (content: string): Part => ({ type: 'text', content })

export function chatContent(messages: unknown): RequestContent {
  return {
    system: [],
    messages: objectsOf(messages).map((message) => {
      const role = textOf(message.role)
      if (role === 'tool' || role === 'function') {
        const response = typeof message.content === 'string' ? message.content : joinedTexts(message.content)
        const result: Part = { type: 'tool_call_response', id: textOf(message.tool_call_id), response }
        return { role: 'tool', parts: [result, ...openAiParts(message.content).filter(isMedia)] }
      }
      const calls = objectsOf(message.tool_calls).map((call): Part => {
        const asked = isJsonObject(call.function) ? call.function : objectOf(call.custom)
        return toolCall(textOf(call.id), textOf(asked.name), asked.arguments ?? asked.input)
      })
      return { role, parts: [...openAiParts(message.content), ...calls] }
    }),
  }
}

export function responsesContent(body: Json): RequestContent {
  const instructions = textOf(body.instructions)
  const system = instructions === '' ? [] : [text(instructions)]
  if (typeof body.input === 'string') return { system, messages: [{ role: 'user', parts: [text(body.input)] }] }
  const messages = objectsOf(body.input).map((item): Message => {
    const type = textOf(item.type)
    if (type === 'function_call' || type === 'custom_tool_call') {
      const call = toolCall(textOf(item.call_id), textOf(item.name), item.arguments ?? item.input)
      return { role: 'assistant', parts: [call] }
    }
    if (type === 'function_call_output' || type === 'custom_tool_call_output') {
      return { role: 'tool', parts: [toolResult(textOf(item.call_id), withoutMedia(item.output, openAiPart), false)] }
    }
    if (type === 'computer_call_output') {
      return { role: 'tool', parts: [toolResult(textOf(item.call_id), withoutMedia([item.output], openAiPart), false)] }
    }
    if (type === 'message' || type === '') return { role: textOf(item.role), parts: openAiParts(item.content) }
    return { role: 'assistant', parts: [{ type: 'generic', kind: type }] }
  })
  return { system, messages }
}

export function anthropicContent(body: Json): RequestContent {
  return {
    system: typeof body.system === 'string' ? [text(body.system)] : objectsOf(body.system).map(anthropicPart),
    messages: objectsOf(body.messages).map((message) => ({
      role: textOf(message.role),
      parts:
        typeof message.content === 'string' ? [text(message.content)] : objectsOf(message.content).map(anthropicPart),
    })),
  }
}

export function geminiContent(body: Json): RequestContent {
  const system = objectOf(body.systemInstruction ?? body.system_instruction)
  return {
    system: objectsOf(system.parts).map(geminiPart),
    messages: objectsOf(body.contents).map((content) => ({
      role: content.role === 'model' ? 'assistant' : textOf(content.role) || 'user',
      parts: objectsOf(content.parts).flatMap((part) => [geminiPart(part), ...mediaOfGeminiResult(part)]),
    })),
  }
}

export function bedrockContent(body: Json): RequestContent {
  return {
    system: objectsOf(body.system).map(bedrockPart),
    messages: objectsOf(body.messages).map((message) => ({
      role: textOf(message.role),
      parts: objectsOf(message.content).map(bedrockPart),
    })),
  }
}

function openAiParts(content: unknown): readonly Part[] {
  return typeof content === 'string' ? [text(content)] : objectsOf(content).map(openAiPart)
}

function openAiPart(part: Json): Part {
  const type = textOf(part.type)
  if (type === 'text' || type === 'input_text' || type === 'output_text') return text(textOf(part.text))
  if (type === 'image_url' || type === 'input_image' || type === 'computer_screenshot') {
    return uriOrBlob('image', textOf(objectOf(part.image_url).url) || textOf(part.image_url))
  }
  if (type === 'input_audio') {
    return { type: 'blob', modality: 'audio', mime_type: `audio/${textOf(objectOf(part.input_audio).format)}` }
  }
  if (type === 'file' || type === 'input_file') {
    const fileId = textOf(objectOf(part.file).file_id) || textOf(part.file_id)
    return { type: 'file', modality: 'document', file_id: fileId }
  }
  return generic(type)
}

function anthropicPart(part: Json): Part {
  switch (part.type) {
    case 'text':
      return text(textOf(part.text))
    case 'thinking':
      return { type: 'reasoning', content: textOf(part.thinking) }
    case 'tool_use':
      return toolCall(textOf(part.id), textOf(part.name), part.input)
    case 'tool_result':
      return toolResult(textOf(part.tool_use_id), withoutMedia(part.content, anthropicPart), part.is_error === true)
    case 'image':
    case 'document': {
      const source = objectOf(part.source)
      const modality = part.type
      if (typeof source.url === 'string') return { type: 'uri', modality, uri: source.url }
      if (typeof source.file_id === 'string') return { type: 'file', modality, file_id: source.file_id }
      return { type: 'blob', modality, mime_type: textOf(source.media_type) }
    }
    default:
      return generic(textOf(part.type))
  }
}

function geminiPart(part: Json): Part {
  if (typeof part.text === 'string') return { type: part.thought === true ? 'reasoning' : 'text', content: part.text }
  const call = objectOf(part.functionCall ?? part.function_call)
  if (typeof call.name === 'string') return toolCall(textOf(call.id), call.name, call.args)
  const answer = objectOf(part.functionResponse ?? part.function_response)
  if (typeof answer.name === 'string') {
    return { type: 'tool_call_response', id: textOf(answer.id) || answer.name, response: answer.response }
  }
  const inline = objectOf(part.inlineData ?? part.inline_data)
  const mimeType = textOf(inline.mimeType ?? inline.mime_type)
  if (mimeType !== '') return { type: 'blob', modality: mimeType.split('/')[0] ?? '', mime_type: mimeType }
  const file = objectOf(part.fileData ?? part.file_data)
  const uri = textOf(file.fileUri ?? file.file_uri)
  return uri === '' ? generic(Object.keys(part)[0] ?? '') : { type: 'uri', modality: 'document', uri }
}

/** Google has them beside the answer of a tool, in a list of their own. */
function mediaOfGeminiResult(part: Json): readonly Part[] {
  return objectsOf(objectOf(part.functionResponse ?? part.function_response).parts).map(geminiPart)
}

function bedrockPart(part: Json): Part {
  if (typeof part.text === 'string') return text(part.text)
  if (isJsonObject(part.toolUse)) {
    return toolCall(textOf(part.toolUse.toolUseId), textOf(part.toolUse.name), part.toolUse.input)
  }
  if (isJsonObject(part.toolResult)) {
    const { toolUseId, content, status } = part.toolResult
    return toolResult(textOf(toolUseId), withoutMedia(content, bedrockPart), status === 'error')
  }
  const reasoning = objectOf(objectOf(part.reasoningContent).reasoningText)
  if (typeof reasoning.text === 'string') return { type: 'reasoning', content: reasoning.text }
  const [kind = '', value] = Object.entries(part)[0] ?? []
  const format = textOf(objectOf(value).format)
  return format === '' ? generic(kind) : { type: 'blob', modality: kind, mime_type: `${kind}/${format}` }
}

/** The result of a tool may hold media: they are named as in messages, and their bytes are not kept. */
function withoutMedia(content: unknown, partOf: (part: Json) => Part): unknown {
  if (!Array.isArray(content)) return content
  return objectsOf(content).map((each) => {
    if (typeof each.text === 'string') return { type: 'text', text: each.text }
    if (isJsonObject(each.json)) return { json: each.json }
    const part = partOf(each)
    return isMedia(part) ? part : { type: textOf(each.type) || Object.keys(each)[0] }
  })
}

function toolCall(id: string, name: string, args: unknown): Part {
  return { type: 'tool_call', id, name, arguments: typeof args === 'string' ? parsedOr(args) : args }
}

function toolResult(id: string, response: unknown, isError: boolean): Part {
  return { type: 'tool_call_response', id, response, ...(isError ? { is_error: true } : {}) }
}

function uriOrBlob(modality: string, uri: string): Part {
  if (!uri.startsWith('data:')) return { type: 'uri', modality, uri }
  return { type: 'blob', modality, mime_type: uri.slice('data:'.length, Math.max(5, uri.indexOf(';'))) }
}

function generic(kind: string): Part {
  return { type: 'generic', kind }
}

function joinedTexts(content: unknown): string {
  return objectsOf(content)
    .map((part) => textOf(part.text))
    .join('')
}
