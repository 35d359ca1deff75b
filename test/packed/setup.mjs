// What `register` does, in code: for a service whose provider is a server of its own that takes OpenAI's option for usage.
import { instrument } from '@tallylight/instrumentation'

const [url] = process.argv.slice(2)
instrument({ baseUrls: [{ url: `${url}/v1`, provider: 'openai', takesUsageOption: true }] })
