// What to say of a name that is not known.
const suggestionDistanceMax = 3

/** What was probably meant, or everything that could be. */
export function instead(name: string, known: readonly string[]): string {
  const [nearest] = known
    .map((each) => ({ each, distance: distance(name, each) }))
    .sort((a, b) => a.distance - b.distance)
  if (nearest !== undefined && nearest.distance <= suggestionDistanceMax) return `; did you mean ${nearest.each}?`
  return `; known are ${known.join(', ')}`
}

/** Letters to add, take away or exchange (Levenshtein). */
function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at)
  for (const [down, letter] of [...one].entries()) {
    let left = down + 1
    const next = [left]
    for (let at = 0; at < other.length; at++) {
      left = Math.min(left + 1, (row[at + 1] ?? 0) + 1, (row[at] ?? 0) + (letter === other[at] ? 0 : 1))
      next.push(left)
    }
    row = next
  }
  return row[other.length] ?? 0
}
