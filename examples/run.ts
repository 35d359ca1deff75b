// `npm run example`: starts the chat service, instrumented by one flag, and chats with it over REST, server-sent events and a
// WebSocket. Without OPENAI_API_KEY a stand-in answers, and nothing leaves the machine. Beside it `npm start` should be running.
import { startService } from './chat-service/process.ts'
import { startStandIn } from './stand-in.ts'
import { askRest, askSocket, askStream } from './visitor.ts'

await using stack = new AsyncDisposableStack()
const environment: Record<string, string> = { TALLYLIGHT_CONTENT: 'full', OTEL_SERVICE_NAME: 'chat-service' }
if (process.env.OPENAI_API_KEY === undefined) {
  const standIn = stack.use(await startStandIn())
  environment.OPENAI_BASE_URL = standIn.url
  stack.defer(() => console.log('the stand-in served', standIn.served()))
}
const service = stack.use(await startService(environment))
const questions = [
  'Who are you?',
  'What is the time in Zürich?',
  'What is the forecast for Zürich?',
  'Tell me [fault:500]',
]
for (const question of questions) {
  for (const ask of [askRest, askStream, askSocket]) {
    const asked = { user: 'ada', conversation: ask.name, question }
    console.log(ask.name, JSON.stringify(question), '→', JSON.stringify(await ask(service.url, asked)))
  }
}
console.log('look at the spans of service "chat-service" in otel_traces')
