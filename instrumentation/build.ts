// Makes the folder that is published: JavaScript as ES modules and as CommonJS, types beside each, and a manifest of its own.
// The sources stay as they are, so that the workspaces here run them without a build.
import { execFileSync } from 'node:child_process'
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { nodeMin } from './version.ts'

const folder = fileURLToPath(new URL('.', import.meta.url))
const compiler = join(folder, '..', 'node_modules', 'typescript', 'bin', 'tsc')

/** Into `out`, which is emptied first. */
export function build(out: string): void {
  rmSync(out, { recursive: true, force: true })
  const project = ['-p', join(folder, 'tsconfig.build.json')]
  compile([...project, '--outDir', join(out, 'esm')])
  const commonJs = ['--module', 'commonjs', '--moduleResolution', 'bundler', '--verbatimModuleSyntax', 'false']
  compile([...project, ...commonJs, '--esModuleInterop', '--outDir', join(out, 'cjs')])
  writeJson(join(out, 'cjs', 'package.json'), { type: 'commonjs' })
  writeJson(join(out, 'package.json'), published(JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))))
  cpSync(join(folder, 'README.md'), join(out, 'README.md'))
  cpSync(join(folder, '..', 'LICENSE'), join(out, 'LICENSE'))
}

function compile(args: readonly string[]): void {
  execFileSync(process.execPath, [compiler, ...args], { stdio: 'inherit' })
}

function writeJson(path: string, value: object): void {
  writeFileSync(path, `${JSON.stringify(value, undefined, 2)}\n`)
}

type Manifest = Readonly<Record<'name' | 'version' | 'license' | 'dependencies', unknown>>

function published({ name, version, license, dependencies }: Manifest): object {
  const entry = (file: string): object => ({
    import: { types: `./esm/${file}.d.ts`, default: `./esm/${file}.js` },
    require: { types: `./cjs/${file}.d.ts`, default: `./cjs/${file}.js` },
  })
  return {
    name,
    version,
    license,
    description: 'Calls of models, turns and tools of a Node service as OpenTelemetry spans, and a quota asked first',
    type: 'module',
    engines: { node: `>=${nodeMin.major}.${nodeMin.minor}` },
    main: './cjs/index.js',
    types: './cjs/index.d.ts',
    exports: { '.': entry('index'), './register': entry('register'), './package.json': './package.json' },
    sideEffects: ['./esm/register.js', './cjs/register.js'],
    dependencies,
  }
}

if (import.meta.main) build(join(folder, 'dist'))
