// Finds the SDK of the Model Context Protocol when it is loaded, by `import` and by `require`, and watches every connection of its
// clients and servers. All versions have a class `Protocol` whose `connect` takes the transport; a line at the end of the module
// that defines it hands it over. An SDK that was loaded before, or that a bundler took in, is not found: that is what `observeMcp` is for.
import * as modules from 'node:module'
import type { McpPeer } from './mcp-spans.ts'

type ProtocolClass = { readonly prototype: McpPeer<never> }

const slot = Symbol.for('tallylight.mcp')
type Global = { [slot]?: (protocol: ProtocolClass) => void }

const sdkModule = /\/@modelcontextprotocol\/(?:sdk|client|server|core)\/dist\/.+\.[cm]?js$/
const definition = /\bclass Protocol \{|\bProtocol = class \{/
const handOver = "\n;globalThis[Symbol.for('tallylight.mcp')]?.(Protocol);\n"

/** `watch` is called with the transport of each connection before it is made. */
export function hookMcp(watch: (transport: unknown) => void): () => void {
  // Before Node 22.15 there is no hook that `require` passes, too.
  if (!('registerHooks' in modules)) return () => undefined
  const unhook: (() => void)[] = []
  const found = ({ prototype }: ProtocolClass): void => {
    const { connect } = prototype
    const watched = function (this: McpPeer<never>, ...args: Parameters<typeof connect>): Promise<void> {
      watch(args[0])
      return Reflect.apply(connect, this, args)
    }
    prototype.connect = watched
    unhook.push(() => {
      if (prototype.connect === watched) prototype.connect = connect
    })
  }
  ;(globalThis as Global)[slot] = found
  const hooks = modules.registerHooks({
    load(url, context, nextLoad) {
      const loaded = nextLoad(url, context)
      if (!sdkModule.test(url) || loaded.source === undefined || loaded.source === null) return loaded
      const source = typeof loaded.source === 'string' ? loaded.source : new TextDecoder().decode(loaded.source)
      return definition.test(source) ? { ...loaded, source: source + handOver } : loaded
    },
  })
  return () => {
    hooks.deregister()
    for (const each of unhook) each()
    if ((globalThis as Global)[slot] === found) delete (globalThis as Global)[slot]
  }
}
