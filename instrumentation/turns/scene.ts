// Where a call stands: in which turn, of which conversation, for whom. It travels in OpenTelemetry's context, and in baggage
// to a service that takes part in the turn.
import {
  type Attributes,
  type BaggageEntry,
  type Context,
  context,
  createContextKey,
  defaultTextMapGetter,
  propagation,
  type TextMapGetter,
  type TextMapPropagator,
  trace,
} from '@opentelemetry/api'
import { attributes } from '../attributes.ts'

export type Scene = {
  /** What users call a chat or session. */
  readonly conversation?: string | undefined
  readonly user?: string | undefined
  readonly tenant?: string | undefined
}

/** What is gathered while a turn goes on. */
export type TurnProgress = {
  calls: number
  readonly tools: Set<string>
  question: string
  answer: string
  firstMs: number | undefined
  blockReason: string
  /** What the service says went wrong, where nothing is thrown through the turn. */
  failure: unknown
}

export type ActiveTurn = {
  /** '' where nobody has opened the turn: then its trace tells which it is. */
  readonly id: string
  readonly scene: Scene
  readonly progress: TurnProgress
}

const key = createContextKey('tallylight.turn')

export function withTurn(parent: Context, turn: ActiveTurn): Context {
  return parent.setValue(key, turn)
}

export function activeTurn(from: Context = context.active()): ActiveTurn | undefined {
  return from.getValue(key) as ActiveTurn | undefined
}

const probeKey = createContextKey('tallylight.probe')

/** What happens inside is a look at a server's health, and nobody's turn. */
export function withProbe(parent: Context): Context {
  return parent.setValue(probeKey, true).deleteValue(key)
}

/** For a call, a tool call, or whatever else happens in the turn. */
export function sceneAttributes(from: Context = context.active()): Attributes {
  const turn = activeTurn(from)
  if (from.getValue(probeKey) === true) return { [attributes.probe]: true }
  if (turn === undefined) return {}
  return { ...attributesOf(turn.scene), ...(turn.id === '' ? {} : { [attributes.turnId]: turn.id }) }
}

/** Services in JavaScript pass ids as they have them, and what came out of a request's JSON may be anything. */
export function inTexts(scene: { readonly [Name in keyof Scene]: unknown } | null): Scene {
  const said = Object.entries(scene ?? {}).filter(([, each]) => each !== undefined && each !== null)
  return Object.fromEntries(said.map(([name, each]) => [name, textOf(each)]))
}

/** Of what no text can be made is somebody, too. */
export function textOf(value: unknown): string {
  try {
    return String(value)
  } catch {
    return '[object]'
  }
}

export function attributesOf({ conversation, user, tenant }: Scene): Attributes {
  return {
    ...(conversation === undefined ? {} : { [attributes.conversation]: conversation }),
    ...(user === undefined ? {} : { [attributes.user]: user }),
    ...(tenant === undefined ? {} : { [attributes.tenant]: tenant }),
  }
}

/** Headers for a request to a service of one's own that joins the turn. They name the user: not for anybody else. */
export function downstreamHeaders(): Record<string, string> {
  const carrier: Record<string, string> = {}
  const turn = activeTurn()
  const active = context.active()
  const entries: Record<string, BaggageEntry> = {}
  if (turn !== undefined) {
    entries[attributes.turnId] = { value: turn.id }
    for (const [name, value] of Object.entries(attributesOf(turn.scene))) entries[name] = { value: String(value) }
  }
  propagation.inject(propagation.setBaggage(active, propagation.createBaggage(entries)), carrier)
  return carrier
}

const globalPropagator: Pick<TextMapPropagator, 'extract'> = {
  extract: (into, carrier, getter) => propagation.extract(into, carrier, getter),
}

/** OpenTelemetry's instrumentation of fetch adds its `traceparent` to the one that a request has, and servers join the two. The
 *  last is of the span that sent it. */
const lastTrace: TextMapGetter<Readonly<Record<string, unknown>>> = {
  keys: defaultTextMapGetter.keys,
  get(headers, name) {
    const value = defaultTextMapGetter.get(headers, name)
    return name === 'traceparent' && typeof value === 'string' ? value.split(',').at(-1)?.trim() : value
  },
}

export type Joined = { readonly parent: Context; readonly turnId: string | undefined; readonly scene: Scene }

/** The trace that the headers of a request come from, and, where whoever sent them is trusted, the turn. */
export function joinedFrom(
  headers: Readonly<Record<string, unknown>>,
  isTrusted: boolean,
  propagator: Pick<TextMapPropagator, 'extract'> = globalPropagator,
): Joined {
  const here = trace.getSpan(context.active())
  const extracted = propagator.extract(context.active(), headers, lastTrace)
  // A span of this process, of the service's HTTP server or of an outer turn, is below the caller's already.
  const parent = here === undefined ? extracted : trace.setSpan(extracted, here)
  if (!isTrusted) return { parent: propagation.deleteBaggage(parent), turnId: undefined, scene: {} }
  const baggage = propagation.getBaggage(parent)
  const entryOf = (name: string): string | undefined => baggage?.getEntry(name)?.value
  const conversation = entryOf(attributes.conversation)
  const user = entryOf(attributes.user)
  const tenant = entryOf(attributes.tenant)
  return {
    // The baggage ends here: what we send on goes to model providers, too.
    parent: propagation.deleteBaggage(parent),
    turnId: entryOf(attributes.turnId),
    scene: {
      ...(conversation === undefined ? {} : { conversation }),
      ...(user === undefined ? {} : { user }),
      ...(tenant === undefined ? {} : { tenant }),
    },
  }
}
