// The page at `/`: asks for the state every two seconds and makes rates of the totals. The key for the last turns is in a
// variable of this page and nowhere else.
const everyMs = 2000
let before
let key = ''

const element = (id) => document.getElementById(id)
const whole = new Intl.NumberFormat('en')
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

function show(id, text, isBad = false) {
  element(id).textContent = text
  element(id).classList.toggle('bad', isBad)
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`
  return `${Math.round(seconds / 3600)} h`
}

function bytes(count) {
  return `${short.format(count)}B`
}

/** Since the last answer; `–` until there are two. */
function rate(now, name) {
  const total = now.totals[name]
  if (before === undefined) return whole.format(total)
  const perSecond = (total - before.state.totals[name]) / ((now.atMs - before.state.atMs) / 1000)
  return `${whole.format(total)} · ${short.format(Math.max(perSecond, 0))}/s`
}

function render(state) {
  const { behind, canary, missing } = state
  const isGood = missing.length === 0 && !behind.isFull && canary?.isGood !== false
  element('lamp').className = `lamp ${isGood ? 'good' : 'bad'}`
  const why = behind.isFull ? 'its journal is full' : 'its last probe did not come back'
  show('status', missing.length > 0 ? missing.join('; ') : isGood ? 'is recording' : `is recording, but ${why}`)
  show('version', `version ${state.version}, up for ${duration((Date.now() - state.startedUnixMs) / 1000)}`)
  show('accepted', rate(state, 'accepted'))
  show('stored', rate(state, 'stored'))
  for (const name of ['refused', 'rejected', 'quarantined'])
    show(name, whole.format(state.totals[name]), state.totals[name] > 0)
  show('age', duration(behind.seconds), behind.seconds > 60)
  show('waiting', whole.format(behind.records))
  show('journal', behind.isFull ? `${bytes(behind.bytes)}, full` : bytes(behind.bytes), behind.isFull)
  show('ledger', duration(state.ledgerSeconds), state.ledgerSeconds > 60)
  show(
    'canary',
    canary === undefined ? 'not yet' : canary.isGood ? `back in ${duration(canary.seconds)}` : 'missing',
    canary?.isGood === false,
  )
}

async function ask() {
  try {
    const answer = await fetch('/state.json')
    if (!answer.ok) throw new Error(`it answers ${answer.status}`)
    const state = { ...(await answer.json()), atMs: performance.now() }
    render(state)
    element('numbers').className = ''
    before = { state }
  } catch (error) {
    element('lamp').className = 'lamp bad'
    show('status', `does not answer (${error.message}); below is what it said last`)
    element('numbers').className = 'old'
    // Rates begin anew with what comes back.
    before = undefined
  }
  if (key !== '') await askTurns()
  setTimeout(ask, everyMs)
}

function cell(text, isWide = false) {
  const made = document.createElement('td')
  made.textContent = text
  if (isWide) made.className = 'wide'
  return made
}

function turnRow(turn) {
  const row = document.createElement('tr')
  const tokens = turn.input === null && turn.output === null ? '' : `${turn.input ?? '?'} → ${turn.output ?? '?'}`
  row.append(
    cell(new Date(Number(turn.atUnixMs)).toLocaleTimeString()),
    cell(turn.tenant),
    cell(turn.service),
    cell(turn.status),
    cell(String(turn.calls)),
    cell(tokens),
    cell(turn.cost === null ? '' : `$${Number(turn.cost).toFixed(4)}`),
    cell(`${whole.format(Math.round(turn.durationMs))} ms`),
    cell(turn.question, true),
    cell(turn.trace),
  )
  return row
}

async function askTurns() {
  try {
    const answer = await fetch('/state/turns', { headers: { Authorization: `Bearer ${key}` } })
    const body = await answer.json()
    if (!answer.ok) {
      key = ''
      show('turns-status', body.detail, true)
      return
    }
    element('turns').hidden = false
    element('turns').tBodies[0].replaceChildren(...body.turns.map(turnRow))
    show('turns-status', body.turns.length === 0 ? 'no turns in the last day' : '')
  } catch (error) {
    show('turns-status', `the turns could not be read (${error.message})`, true)
  }
}

element('key-form').addEventListener('submit', (event) => {
  event.preventDefault()
  key = element('key').value.trim()
  void askTurns()
})
void ask()
