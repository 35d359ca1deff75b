// The worker that counts tokens: `estimate.ts` in a thread of its own, where its memory and its milliseconds hold up nobody.
import { parentPort } from 'node:worker_threads'
import { estimateUsage, type Texts } from './estimate.ts'

parentPort?.on('message', ({ id, texts }: { readonly id: number; readonly texts: Texts }) => {
  parentPort?.postMessage({ id, estimate: estimateUsage(texts) })
})
