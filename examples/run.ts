// `npm run example`: starts the chat service, instrumented by one flag, and chats with it over REST, server-sent events and a
// WebSocket. Without OPENAI_API_KEY a stand-in answers, and nothing leaves the machine. Beside it `npm start` should be running:
// then Bob has a limit of a few tokens, is denied, and every board has something to show.
import { startService } from './chat-service/process.ts'
import { setLimits } from './limits.ts'
import { startStandIn } from './stand-in.ts'
import { askRest, askSocket, askStream, changeModel } from './visitor.ts'

await using stack = new AsyncDisposableStack()
const environment: Record<string, string> = { TALLYLIGHT_CONTENT: 'full', OTEL_SERVICE_NAME: 'chat-service' }
if (process.env.OPENAI_API_KEY === undefined) {
  const standIn = stack.use(await startStandIn())
  environment.OPENAI_BASE_URL = standIn.url
  stack.defer(() => console.log('the stand-in served', standIn.served()))
}
if (await setLimits()) environment.TALLYLIGHT_QUOTA = 'enforce'
const service = stack.use(await startService(environment))

async function chat(user: string, question: string): Promise<void> {
  for (const ask of [askRest, askStream, askSocket]) {
    const asked = { user, conversation: `${user} over ${ask.name}`, question }
    console.log(ask.name, JSON.stringify(question), '→', JSON.stringify(await ask(service.url, asked)))
  }
}

await chat('bob', 'Who are you?')
await chat('ada', 'Tell me [fault:500]')
await chat('ada', 'Who are you?')
await changeModel(service.url, { user: 'ada', model: 'gpt-4.1-mini' })
await chat('ada', 'What is the time in Zürich?')
await chat('ada', 'What is the forecast for Zürich?')
console.log('look at http://localhost:4319/, at the boards (docs/dashboards.md), or at the turns in tallylight.turns')
