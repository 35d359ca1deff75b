// Conversation, user, tenant label and turn, under all the names they are sent by. One pass over the attributes: each name
// has a rank, and of several the one that stands first in its list wins.
import { isObject, isTrue, objectOf, scalarText } from './attributes.ts'
import type { Scene } from './fact.ts'
import type { Attributes } from './record.ts'

type Field = Exclude<keyof Scene, 'isProbe'>

const metadataPrefixes = [
  'traceloop.association.properties.',
  'ai.telemetry.metadata.',
  'ai.settings.context.',
  'langfuse.trace.metadata.',
  'langfuse.observation.metadata.',
  'langsmith.metadata.',
]

/** What services call these things where a name is theirs to choose. */
const metadataNames: Readonly<Record<'conversationId' | 'userId' | 'tenantLabel', readonly string[]>> = {
  conversationId: [
    'conversation_id',
    'conversationId',
    'session_id',
    'sessionId',
    'thread_id',
    'threadId',
    'chat_id',
    'chatId',
  ],
  userId: ['user_id', 'userId'],
  tenantLabel: ['tenant_id', 'tenantId', 'tenant'],
}

const inMetadata = (field: keyof typeof metadataNames) =>
  metadataPrefixes.flatMap((prefix) => metadataNames[field].map((name) => prefix + name))

// `langsmith.trace.session_id` is a project, `mcp.session.id` a transport: neither is a conversation.
const names: Readonly<Record<Field, readonly string[]>> = {
  conversationId: [
    'gen_ai.conversation.id',
    'gen_ai.thread.id',
    'langfuse.session.id',
    'microsoft.session.id',
    'spring.ai.chat.client.conversation.id',
    ...inMetadata('conversationId'),
  ],
  sessionId: ['session.id'],
  userId: [
    'user.id',
    'enduser.id',
    'langfuse.user.id',
    ...inMetadata('userId'),
    'gen_ai.user',
    'gen_ai.request.user',
    'gen_ai.user.id',
    'llm.user',
    'enduser.pseudo.id',
  ],
  tenantLabel: [
    'tenant.id',
    'tenant_id',
    'tenantId',
    'microsoft.tenant.id',
    ...inMetadata('tenantLabel'),
    'tallylight.tenant.id',
  ],
  turnId: ['tallylight.turn.id'],
  channel: ['tallylight.turn.channel'],
  clientAddress: ['client.address', 'http.client_ip', 'net.peer.ip'],
  userAgent: ['user_agent.original', 'http.user_agent'],
}

/** Names by which a record may say that it is a user's, or of a conversation. */
export const attributeNames = {
  user: names.userId,
  conversation: [...names.conversationId, ...names.sessionId],
} as const

/** The same inside of an object of metadata. */
export const namesInMetadata = { user: metadataNames.userId, conversation: metadataNames.conversationId } as const

const ranks = new Map<string, { readonly field: Field; readonly rank: number }>(
  Object.entries(names).flatMap(([field, keys]) => keys.map((key, rank) => [key, { field: field as Field, rank }])),
)

/** Whole objects of metadata, as JSON or structured: OpenInference's, Langfuse's. */
const metadataKeys = ['metadata', 'langfuse.trace.metadata', 'langfuse.observation.metadata']

/** Every attribute that `sceneOf` looks at. */
export const sceneKeys: readonly string[] = [...ranks.keys(), ...metadataKeys, 'tallylight.probe']
export const sceneResourceKeys: readonly string[] = ['tenant.id', 'tallylight.tenant.id']

export function sceneOf(attributes: Attributes, resource: Attributes): Scene {
  const found: { -readonly [field in Field]?: string } = {}
  const best: { [field in Field]?: number } = {}
  for (const [key, value] of attributes) {
    const named = ranks.get(key)
    if (named === undefined || (best[named.field] ?? Number.POSITIVE_INFINITY) <= named.rank) continue
    const text = scalarText(value)
    if (text === '') continue
    found[named.field] = text
    best[named.field] = named.rank
  }
  for (const key of metadataKeys) if (attributes.has(key)) readMetadata(attributes, key, found)
  found.tenantLabel ??= sceneResourceKeys.map((key) => scalarText(resource.get(key))).find((text) => text !== '') ?? ''
  if (found.tenantLabel === '') delete found.tenantLabel
  return isTrue(attributes.get('tallylight.probe')) ? { ...found, isProbe: true } : found
}

function readMetadata(attributes: Attributes, key: string, found: { [field in Field]?: string }): void {
  const metadata = objectOf(attributes.get(key))
  if (!isObject(metadata)) return
  for (const field of ['conversationId', 'userId', 'tenantLabel'] as const)
    for (const name of metadataNames[field]) {
      const text = scalarText(metadata[name])
      if (text !== '' && found[field] === undefined) found[field] = text
    }
}
