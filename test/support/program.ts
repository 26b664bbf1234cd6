// Programs that tests start as separate processes. They start often, so run-tests.ts compiles everything once, and the start of a program
// costs little time. A test file that runs without run-tests.ts starts its programs with tsx.

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('../../', import.meta.url))
const OPTIONS = {
  noCheck: true,
  noEmit: false,
  rewriteRelativeImportExtensions: true,
  allowImportingTsExtensions: false,
  declaration: false,
  declarationMap: false,
  sourceMap: true,
}

/** Compiles `lib` and `test` into a new `directory`. Source maps: compiled-sources.mjs. */
export async function compileAll(directory: string): Promise<void> {
  const options = Object.entries(OPTIONS).flatMap(([name, value]) => [`--${name}`, String(value)])
  const compiler = join(root, 'node_modules', '.bin', 'tsc')
  await promisify(execFile)(compiler, ['-p', join(root, 'test', 'tsconfig.json'), ...options, '--outDir', directory])
  await cp(join(root, 'lib', 'status-page', 'page'), join(directory, 'lib', 'status-page', 'page'), { recursive: true })
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'))
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module' }))
}

/** Changes with every change of a source file. */
async function stampOfSources(): Promise<string> {
  const hash = createHash('sha256')
  for (const folder of ['lib', 'test'])
    for (const name of (await readdir(join(root, folder), { recursive: true })).sort()) {
      const { size, mtimeMs } = await stat(join(root, folder, name))
      hash.update(`${folder}/${name} ${size} ${mtimeMs}\n`)
    }
  return hash.digest('hex').slice(0, 16)
}

const MAX_AGE_MS = 24 * 60 * 60 * 1_000
const isOld = async (path: string): Promise<boolean> => Date.now() - (await stat(path)).mtimeMs > MAX_AGE_MS

/** The directory of `compileAll` for the present sources; it stays for the next call. Several processes may call it at once. */
export async function cachedPrograms(): Promise<string> {
  const cache = join(root, 'node_modules', '.cache', 'enmesh', 'programs')
  const directory = join(cache, await stampOfSources())
  if (existsSync(directory)) return directory
  await mkdir(cache, { recursive: true })
  const compiled = await mkdtemp(join(cache, 'new-'))
  await compileAll(compiled)
  for (const old of await readdir(cache))
    if (await isOld(join(cache, old))) await rm(join(cache, old), { recursive: true })
  // Another process may have been faster.
  await rename(compiled, directory).catch(() => rm(compiled, { recursive: true, force: true }))
  return directory
}

/** Node's arguments for a program below `test`, such as `host/main.ts`. `compiled`: the directory of `compileAll`. */
export const programArguments = (program: string, compiled = process.env.TEST_PROGRAMS): string[] =>
  compiled
    ? [join(compiled, 'test', program.replace(/\.ts$/, '.js'))]
    : ['--import', 'tsx', join(root, 'test', program)]
