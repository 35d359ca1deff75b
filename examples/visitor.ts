// Somebody who chats with the service, over each of its transports. Gives the answer, or what the service said instead.
import { on, once } from 'node:events'
import WebSocket from 'ws'

export type Asked = { readonly user: string; readonly conversation: string; readonly question: string }

export async function askRest(url: string, asked: Asked): Promise<string> {
  const reply = await post(`${url}/chat`, asked)
  const { answer, title } = (await reply.json()) as { readonly answer?: string; readonly title?: string }
  return answer ?? `${reply.status} ${title}`
}

export async function askStream(url: string, asked: Asked, signal?: AbortSignal): Promise<string> {
  const reply = await post(`${url}/chat/stream`, asked, signal)
  let answer = ''
  for (const event of (await reply.text()).split('\n\n')) {
    const [, name = 'text', data = ''] = /^(?:event: (\w+)\n)?data: (.*)$/s.exec(event) ?? []
    if (name === 'error') return failureIn(JSON.parse(data))
    if (name === 'text' && data !== '') answer += JSON.parse(data)
  }
  return answer
}

export async function askSocket(url: string, asked: Asked): Promise<string> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/chat/socket`)
  await once(socket, 'open')
  socket.send(JSON.stringify(asked))
  let answer = ''
  try {
    for await (const [data] of on(socket, 'message')) {
      const event = JSON.parse(String(data))
      if (event.error !== undefined) return failureIn(event.error)
      if (event.done === true) break
      answer += event.text
    }
  } finally {
    socket.close()
    await once(socket, 'close')
  }
  return answer
}

export async function changeModel(
  url: string,
  wanted: { readonly user: string; readonly model: string },
): Promise<void> {
  const reply = await fetch(`${url}/model`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(wanted),
  })
  console.log('the model is', await reply.json())
}

function post(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  const headers = { 'content-type': 'application/json' }
  return fetch(url, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  })
}

function failureIn({ status, title }: { readonly status: number; readonly title: string }): string {
  return `${status} ${title}`
}
