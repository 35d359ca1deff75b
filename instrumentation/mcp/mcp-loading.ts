// Finds the SDK of the Model Context Protocol when it is loaded, by `import` and by `require`, and watches every connection of its
// clients and servers. In all versions `Client` and `Server` extend one class, whose `connect` is given the transport. An SDK that
// was loaded before, or that a bundler took in, is not found: that is what `observeMcp` is for.
//
// An import of their module is resolved to a module of two lines that hands the classes over and passes everything on. The source is
// left alone: a hook that loads sources breaks CommonJS that requires in circles, Next.js for one, in many releases of Node 22 and 24.
import * as modules from 'node:module'
import { isJsonObject } from '../providers/json-fields.ts'
import type { McpPeer } from './mcp-spans.ts'

const slot = Symbol.for('tallylight.mcp')
type Found = (sdk: unknown) => void
type Global = { [slot]?: Found }

export type McpLoading = {
  /** Called with the transport of each connection before it is made. */
  readonly connecting: (transport: unknown) => void
  readonly failed: (error: unknown) => void
}

export function hookMcp({ connecting, failed }: McpLoading): () => void {
  const watched = new Map<McpPeer<never>, () => void>()

  function watchPrototype(prototype: McpPeer<never>): void {
    if (watched.has(prototype)) return
    const { connect } = prototype
    const hooked = function (this: McpPeer<never>, ...args: Parameters<typeof connect>): Promise<void> {
      connecting(args[0])
      return Reflect.apply(connect, this, args)
    }
    prototype.connect = hooked
    watched.set(prototype, () => {
      if (prototype.connect === hooked) prototype.connect = connect
    })
  }

  const found: Found = (sdk) => {
    try {
      for (const prototype of protocolsIn(sdk)) watchPrototype(prototype)
    } catch (error) {
      failed(error)
    }
  }
  ;(globalThis as Global)[slot] = found
  const unhook = [hookImport(), hookRequire(found)]
  return () => {
    for (const each of [...unhook, ...watched.values()]) each()
    if ((globalThis as Global)[slot] === found) delete (globalThis as Global)[slot]
  }
}

/** What `Client` and `Server` extend. */
function protocolsIn(sdk: unknown): readonly McpPeer<never>[] {
  if (typeof sdk !== 'object' || sdk === null) return []
  return ['Client', 'Server'].flatMap((name) => {
    const exported: unknown = Reflect.get(sdk, name)
    if (typeof exported !== 'function') return []
    const base: unknown = Object.getPrototypeOf(exported.prototype)
    return isJsonObject(base) && typeof base.connect === 'function' ? [base as unknown as McpPeer<never>] : []
  })
}

const importedSdk =
  /\/@modelcontextprotocol\/(?:sdk\/dist\/esm\/(?:client|server)\/index\.js|(?:client|server)\/dist\/index\.mjs)$/

function hookImport(): () => void {
  // Before Node 22.15 there is no such hook in the thread itself.
  if (!('registerHooks' in modules)) return () => undefined
  const hooks = modules.registerHooks({
    resolve(specifier, context, nextResolve) {
      const resolved = nextResolve(specifier, context)
      if (!importedSdk.test(resolved.url)) return resolved
      const passing = passingOn(resolved.url)
      return context.parentURL === passing ? resolved : { ...resolved, url: passing, format: 'module' }
    },
  })
  return () => hooks.deregister()
}

function passingOn(url: string): string {
  const from = JSON.stringify(url)
  const lines = `import * as sdk from ${from}\nexport * from ${from}\nglobalThis[Symbol.for('tallylight.mcp')]?.(sdk)\n`
  return `data:text/javascript,${encodeURIComponent(lines)}`
}

const sdkName = '@modelcontextprotocol'

/** The modules of the SDK require each other by relative names: what counts is who requires what. */
function hookRequire(found: Found): () => void {
  const { prototype } = modules.Module
  const original = prototype.require
  const hooked = function (this: modules.Module, id: string): unknown {
    const required: unknown = Reflect.apply(original, this, [id])
    if (String(id).includes(sdkName) || this.filename?.includes(sdkName) === true) found(required)
    return required
  }
  prototype.require = hooked as typeof original
  return () => {
    if (prototype.require === hooked) prototype.require = original
  }
}
