// Whether the server turns our type into a table's on insert without changing or refusing a value. It converts more than
// that: UInt32 → UInt8 makes 44 of 300 and says nothing, text that is no number fails the block. So this is a list of what
// is safe, each line proven by an insert in schema.db.test.ts, and not a question to the server.

/** True when every value we may send arrives as sent, or, for times, in the table's own precision. */
export function takes(theirs: string, ours: string): boolean {
  const inner = unwrapped(theirs)
  const sent = unwrapped(ours)
  const ourElement = argumentOf(sent, 'Array')
  if (ourElement !== undefined) {
    const theirElement = argumentOf(inner, 'Array')
    return theirElement !== undefined && takes(theirElement, ourElement)
  }
  if (sent === 'Map(LowCardinality(String), String)') return takesMap(inner)
  if (sent === 'DateTime64(9)' || sent === 'DateTime') return isTime(inner)
  if (sent === 'Bool') return inner === 'Bool' || inner === 'UInt8'
  return inner === sent || isWider(inner, sent)
}

/** JSON takes a map as an object, with dotted keys as paths. Typed paths would refuse values that are not of their type. */
function takesMap(theirs: string): boolean {
  const pair = splitArguments(argumentOf(theirs, 'Map') ?? '')
  if (pair.length === 2) return pair.every((part) => unwrapped(part) === 'String')
  if (theirs === 'JSON') return true
  const options = argumentOf(theirs, 'JSON')
  return (
    options !== undefined &&
    splitArguments(options).every((option) => /^(max_dynamic_(paths|types)\s*=|SKIP )/.test(option))
  )
}

function isTime(theirs: string): boolean {
  return /^DateTime(64\(\d(, '[^']*')?\)|\('[^']*'\))?$/.test(theirs)
}

/** Int64 for UInt64 is the exporter's older Duration; a value above it would be 292 years, or a count of 9 × 10^18. */
function isWider(theirs: string, ours: string): boolean {
  const [, theirSign, theirBits] = /^(U?)Int(\d+)$/.exec(theirs) ?? []
  const [, ourSign, ourBits] = /^(U?)Int(\d+)$/.exec(ours) ?? []
  if (theirBits === undefined || ourBits === undefined) return false
  if (ours === 'UInt64' && theirs === 'Int64') return true
  if (theirSign === ourSign) return Number(theirBits) >= Number(ourBits)
  return ourSign === 'U' && Number(theirBits) > Number(ourBits)
}

function unwrapped(type: string): string {
  for (const wrapper of ['LowCardinality', 'Nullable']) {
    const inner = argumentOf(type, wrapper)
    if (inner !== undefined) return unwrapped(inner)
  }
  const aggregated = splitArguments(argumentOf(type, 'SimpleAggregateFunction') ?? '')[1]
  return aggregated === undefined ? type : unwrapped(aggregated)
}

function argumentOf(type: string, name: string): string | undefined {
  return type.startsWith(`${name}(`) && type.endsWith(')') ? type.slice(name.length + 1, -1) : undefined
}

function splitArguments(text: string): readonly string[] {
  const parts: string[] = []
  let depth = 0
  let start = 0
  for (let at = 0; at < text.length; at++) {
    if (text[at] === '(') depth++
    else if (text[at] === ')') depth--
    else if (text[at] === ',' && depth === 0) {
      parts.push(text.slice(start, at).trim())
      start = at + 1
    }
  }
  if (text !== '') parts.push(text.slice(start).trim())
  return parts
}
