// The page at `/` in a real browser, where Chromium of the distribution is installed; elsewhere what it is made of is looked at.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { chromium } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CollectorProcess, startCollector } from '../collector-process.ts'
import { spansOf, tracesRequest } from '../dashboards/traffic.ts'

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((path) => existsSync(path))
/** `TALLYLIGHT_TEST_PICTURES=1` writes the pictures of the README again. */
const pictures = fileURLToPath(new URL('../../docs/pictures/', import.meta.url))
const commandPath = fileURLToPath(new URL('../../collector/command-line.ts', import.meta.url))
let collector: CollectorProcess

beforeAll(async () => {
  collector = await startCollector({ TALLYLIGHT_SELF_CHECK_MS: '1000' })
  const turns = ['the weather', 'the invoice of May', 'the order'].map((about, at) => ({
    ...{ name: about, atUnixMs: Date.now() - at * 1_000, tenant: 'default', service: 'chat', user: 'ada' },
    calls: [{ provider: 'openai', model: 'gpt-4o-mini', durationMs: 840, tokens: { input: 900, output: 120 } }],
    tools: [{ name: 'search', durationMs: 90 }],
  }))
  await fetch(`http://127.0.0.1:${collector.ports().otlpHttp}/v1/traces`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(tracesRequest(turns.flatMap(spansOf))),
  })
}, 60_000)
afterAll(() => collector?.[Symbol.asyncDispose]())

if (executablePath !== undefined) {
  test('page: in a browser it is alive, its numbers move, and the turns are reached with the keyboard alone', async () => {
    await using browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] })
    const page = await browser.newPage({ viewport: { width: 1280, height: 700 }, colorScheme: 'light' })
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(error.message))
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()))
    await page.goto(`http://127.0.0.1:${collector.ports().api}/`)
    await page.getByText('is recording', { exact: true }).waitFor()
    await page.locator('#accepted', { hasText: '/s' }).waitFor()
    await page.locator('#canary', { hasText: 'back in' }).waitFor()
    const seen = await page.locator('#accepted').textContent()
    await expect.poll(() => page.locator('#accepted').textContent(), { timeout: 20_000 }).not.toBe(seen)
    await page.keyboard.press('Tab')
    await page.keyboard.type(collector.adminKey)
    await page.keyboard.press('Enter')
    await page.getByText('How is the invoice of May?').waitFor()
    expect(await page.locator('#turns tbody tr').count()).toBe(3)
    if (process.env.TALLYLIGHT_TEST_PICTURES === '1') {
      await mkdir(pictures, { recursive: true })
      await page.screenshot({ path: `${pictures}state-page.png` })
    }
    await collector.kill('SIGTERM')
    await page.getByText('does not answer').waitFor()
    // Numbers of before are not those of now.
    await page.locator('#numbers.old').waitFor()
    if (process.env.TALLYLIGHT_TEST_PICTURES === '1') {
      await page.emulateMedia({ colorScheme: 'dark' })
      await page.screenshot({ path: `${pictures}state-page-away.png`, clip: { x: 0, y: 0, width: 1280, height: 420 } })
    }
    // What is asked of a collector that is gone is an error of the network, and the only one there may be.
    expect(problems.filter((problem) => !problem.includes('ERR_CONNECTION_REFUSED'))).toEqual([])
    await collector.start()
  })
}

test('canary: its call costs nothing, and is counted among none of those that lack a price', async () => {
  await expect.poll(() => collector.metric('tallylight_canary_success'), { timeout: 20_000 }).toBe(1)
  expect(await collector.query("SELECT count() > 0 AS came FROM tallylight.llm_calls WHERE Model = 'canary'")).toEqual([
    { came: 1 },
  ])
  for (const name of ['tallylight_unpriced_calls_total', 'tallylight_quota_records_unpriced_total'])
    expect(await collector.metric(name), name).toBe(0)
  const environment = { PATH: process.env.PATH ?? '', TALLYLIGHT_DATA_DIR: collector.directory }
  const { stdout } = await promisify(execFile)(process.execPath, [commandPath, 'reprice'], { env: environment })
  expect(JSON.parse(stdout)).toEqual({ priced: 0, unpriced: 0 })
})

test('page: it is served with a policy that lets it load nothing from elsewhere, and names what it fills in', async () => {
  const answer = await fetch(`http://127.0.0.1:${collector.ports().api}/`)
  const html = await answer.text()
  expect(answer.headers.get('content-security-policy')).toContain("default-src 'none'; script-src 'self'")
  expect(html).not.toMatch(/(src|href)="https?:/)
  const script = await readFile(new URL('../../collector/api/state-page.js', import.meta.url), 'utf8')
  const asked = [...script.matchAll(/(?:element|show)\('([\w-]+)'/g)].map(([, id]) => id as string)
  expect(asked.length).toBeGreaterThan(10)
  for (const id of asked) expect(html, id).toContain(`id="${id}"`)
})
