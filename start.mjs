// Runs one of the workspace's programs on the pinned Node, installing what is missing first.
// Plain JavaScript, because a fresh checkout has neither the pinned Node nor anything else: only the system's Node (20 or
// newer) and npm. What is installed is compared with the lock file, so that a pull with new dependencies heals itself.
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(fileURLToPath(import.meta.url))
const stampPath = join(root, 'node_modules', '.tallylight-installed')
const nodePath = join(root, 'node_modules', 'node', 'bin', 'node')

const manifests = [
  'package.json',
  'package-lock.json',
  'collector/package.json',
  'examples/package.json',
  'dashboards/package.json',
  'instrumentation/package.json',
  'storage/package.json',
  'test/package.json',
]
const wanted = createHash('sha256')
for (const manifest of manifests)
  if (existsSync(join(root, manifest))) wanted.update(readFileSync(join(root, manifest)))
const stamp = wanted.digest('hex')

const isInstalled = () => existsSync(nodePath) && existsSync(stampPath) && readFileSync(stampPath, 'utf8') === stamp

if (!isInstalled()) {
  console.error('tallylight: installing dependencies (once)')
  // The npm that runs this script, else the one on the path. `install` rather than `ci`: where a registry lacks the
  // engines' packages for other platforms, `ci` fails and `install` with the lock file does not.
  const npm = process.env.npm_execpath
  const args = ['install', '--no-audit', '--no-fund', '--loglevel=error']
  // What npm put into our environment describes the outer run; a nested npm would take it for the user's own settings.
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) =>
        !/^npm_(config|lifecycle|package)_/i.test(name) ||
        /^npm_config_(registry|userconfig|cache|proxy|https_proxy|noproxy|cafile|ca|strict_ssl)$/i.test(name),
    ),
  )
  const installed = npm
    ? spawnSync(process.execPath, [npm, ...args], { cwd: root, stdio: ['ignore', 2, 2], env: environment })
    : spawnSync('npm', args, {
        cwd: root,
        stdio: ['ignore', 2, 2],
        env: environment,
      })
  if (installed.status !== 0) {
    console.error(
      `tallylight: npm ${args.join(' ')} failed with ${installed.status ?? installed.signal ?? installed.error}; its output is above`,
    )
    process.exit(1)
  }
  if (!existsSync(nodePath)) {
    console.error(
      `tallylight: the pinned Node is not at ${nodePath}; npm must be allowed to run the install script of the package "node" (package.json names it under allowScripts)`,
    )
    process.exit(1)
  }
  writeFileSync(stampPath, stamp)
}

const [program, ...args] = process.argv.slice(2)
if (program === undefined) {
  console.error('usage: node start.mjs PROGRAM [arguments]')
  process.exit(2)
}
// What is compiled is kept: types that are stripped and code that is compiled again are 40 % of the CPU of a collector's start.
const compiledPath = join(root, 'node_modules', '.tallylight-compiled')
// Node lets what is young grow to 128 MiB, of which a busy collector pays each: in memory, and in pauses twice as long.
const nodeOptions = ['--disable-warning=ExperimentalWarning', '--max-semi-space-size=16']
const child = spawn(nodePath, [...nodeOptions, join(root, program), ...args], {
  stdio: 'inherit',
  env: { NODE_COMPILE_CACHE: compiledPath, ...process.env },
})
// The terminal sends Ctrl-C to the whole group, a supervisor only to us: passing it on makes both end the same way, and
// the child decides when it is done.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => {
  if (signal) process.kill(process.pid, signal)
  process.exit(code ?? 1)
})
