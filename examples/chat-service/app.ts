// A chat over three transports, as a service would have it: REST, server-sent events, a WebSocket. Started by
// `node --import @tallylight/instrumentation/register app.ts`; with OPENAI_API_KEY it speaks to OpenAI, with OPENAI_BASE_URL to
// whoever answers there. Prints its port.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  expressTurn,
  failTurn,
  quotaExceededIn,
  recordAudit,
  running,
  socketTurns,
  startProber,
  type TurnScene,
} from '@tallylight/instrumentation/index.ts'
import express, { type Request, type Response } from 'express'
import OpenAI from 'openai'
import { WebSocketServer } from 'ws'
import { openChat } from './chat.ts'
import { openTools } from './tools.ts'

await using tools = await openTools()
// A call that is denied is denied again at once: the service tells its user instead of trying twice more.
const openai = new OpenAI({ apiKey: process.env.OPENAI_API_KEY ?? 'none', maxRetries: 0 })
let model = process.env.CHAT_MODEL ?? 'gpt-4o-mini'
const chat = openChat(openai, () => model, tools)
await using _prober = startProber([{ target: 'mcp:weather', check: () => tools.ping() }])

type Asked = { readonly user: string; readonly conversation: string; readonly question: string }

const sceneOf =
  (channel: string) =>
  ({ body }: Request): TurnScene => ({ ...(body as Asked), channel })

const app = express()
app.use(express.json())

app.post('/chat', expressTurn(sceneOf('rest')), async (request: Request, response: Response) => {
  try {
    response.json({ answer: await chat((request.body as Asked).question, {}) })
  } catch (error) {
    const { status, ...failure } = failureOf(error)
    response.status(status).json(failure)
  }
})

app.post('/chat/stream', expressTurn(sceneOf('sse')), async (request: Request, response: Response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  const left = new AbortController()
  response.once('close', () => left.abort())
  try {
    const onText = (text: string): boolean => response.write(`data: ${JSON.stringify(text)}\n\n`)
    await chat((request.body as Asked).question, { onText, signal: left.signal })
    response.write('event: done\ndata: {}\n\n')
  } catch (error) {
    // The status was sent long ago.
    failTurn(error)
    response.write(`event: error\ndata: ${JSON.stringify(failureOf(error))}\n\n`)
  }
  response.end()
})

/** Who changes what everybody's chat runs on is written down. */
app.put('/model', (request: Request, response: Response) => {
  const { model: wanted, user } = request.body as { readonly model: string; readonly user: string }
  const [before, after] = [{ model }, { model: wanted }]
  model = wanted
  recordAudit({ action: 'model.change', actor: user, resource: { type: 'chat', id: 'model' }, before, after })
  response.json(after)
})

const server = createServer(app)
const sockets = new WebSocketServer({ server, path: '/chat/socket' })
sockets.on('connection', (socket, request) => {
  const turns = socketTurns(socket, {}, request.headers)
  socket.on('message', async (data) => {
    const { question, ...scene } = JSON.parse(data.toString()) as Asked
    const send = (event: object): void => socket.send(JSON.stringify(event))
    try {
      await turns.turn({ ...scene, question }, () => chat(question, { onText: (text) => send({ text }) }))
      send({ done: true })
    } catch (error) {
      send({ error: failureOf(error) })
    }
  })
})

/** What a user is told: of a limit which one and when, of all else nothing. */
function failureOf(error: unknown): { readonly status: number; readonly title: string; readonly resetsAt?: Date } {
  const exceeded = quotaExceededIn(error)?.denial
  if (exceeded === undefined) return { status: 502, title: 'The model did not answer' }
  const resets = exceeded.resetsAt === undefined ? {} : { resetsAt: exceeded.resetsAt }
  return { status: 429, title: `Quota exceeded: ${exceeded.limitId}`, ...resets }
}

server.listen(Number(process.env.PORT ?? 0), '127.0.0.1')
await once(server, 'listening')
console.log(JSON.stringify({ port: (server.address() as AddressInfo).port }))
await once(process, 'SIGTERM')
for (const socket of sockets.clients) socket.terminate()
server.closeAllConnections()
server.close()
await running()?.flush()
