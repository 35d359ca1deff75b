// The first line of a request: which upstream, which path there, and the tenant's key where it stands in the path. It is the
// only thing of a request that chooses where it goes, so it is read strictly: what two programs could read in two ways is
// refused. The path goes on as it came, byte for byte.

export type Target =
  | {
      readonly kind: 'target'
      readonly upstream: string
      /** From its slash on, with the query. */
      readonly path: string
      readonly key: string | undefined
    }
  | { readonly kind: 'refused'; readonly message: string }

export function readTarget(url: string): Target {
  const reason = reasonAgainst(url)
  if (reason !== undefined) return { kind: 'refused', message: reason }
  const at = url.indexOf('?')
  const query = at === -1 ? '' : url.slice(at)
  const [, ...segments] = (at === -1 ? url : url.slice(0, at)).split('/')
  const isWithKey = segments[0] === 'k'
  const key = isWithKey ? (segments[1] ?? '') : undefined
  const [upstream = '', ...rest] = isWithKey ? segments.slice(2) : segments
  const path = `/${rest.join('/')}${query}`
  // Behind the upstream, or where Gemini's key would be: it would be told to the provider, and stand in its logs.
  if (keyAnywhere.test(path)) return { kind: 'refused', message: keyAstray }
  return { kind: 'target', upstream, path, key }
}

const keyAnywhere = /tl_[a-z0-9]{8}_[0-9a-f]{64}/i
const keyAstray =
  'a key of Tallylight stands where it would be sent on: its place is X-Tallylight-Key, or /k/<key>/ before the upstream'

/** For whatever is shown, said or written of a request's address. */
export function withoutKey(url: string): string {
  return url.replace(/^\/k\/[^/?]*/, '/k/***').replace(/tl_[0-9a-z_]+/gi, 'tl_***')
}

function reasonAgainst(url: string): string | undefined {
  if (!url.startsWith('/'))
    return 'the request names a host: this forwards to the upstreams of its configuration alone, by /<upstream>/<path>'
  if (!/^[\x21-\x7e]*$/.test(url) || url.includes('#')) return 'the path has characters that no URL may have'
  const path = url.split('?', 1)[0] ?? ''
  if (/\\|%5c/i.test(path)) return 'the path has a backslash'
  const segments = path.slice(1).split('/')
  if (segments.slice(0, -1).includes('')) return 'the path has two slashes in a row'
  if (segments.some(isDotted)) return 'the path has a segment of dots'
  return undefined
}

/** However often they are escaped: an upstream may undo it more than once. A slash in a segment (`%2f`) is none of ours. */
function isDotted(segment: string): boolean {
  let text = segment
  for (let depth = 0; depth < 4 && text.includes('%'); depth++) text = text.replace(/%(25|2e|2f|5c)/gi, unescapeOne)
  return text.split(/[/\\;]/).some((part) => part === '.' || part === '..')
}

function unescapeOne(escaped: string): string {
  return String.fromCharCode(Number.parseInt(escaped.slice(1), 16))
}
