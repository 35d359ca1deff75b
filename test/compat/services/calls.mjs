// Makes calls one after the other, and prints what was served to each that gave something.

export async function all(stream) {
  const items = []
  for await (const item of stream) items.push(item)
  return items
}

/** Each is the tokens that the stand-in serves, and the call; undefined where the SDK has no such call. */
export async function run(calls) {
  const served = []
  for (const each of calls) {
    if (!each) continue
    const [tokens, call] = each
    if (!(await call())) throw new Error(`the call ${served.length + 1} gave nothing`)
    served.push([tokens[0] ?? null, tokens[1] ?? null])
  }
  console.log(JSON.stringify(served))
}
