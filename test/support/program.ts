// Programs that tests start as separate processes. They start often, so run-tests.ts compiles everything once, and the start of a program
// costs little time. A test file that runs without run-tests.ts starts its programs with tsx.

import { execFile } from 'node:child_process'
import { symlink, writeFile } from 'node:fs/promises'
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
  sourceMap: false,
}

/** Compiles `lib` and `test` into a new `directory`. */
export async function compileAll(directory: string): Promise<void> {
  const options = Object.entries(OPTIONS).flatMap(([name, value]) => [`--${name}`, String(value)])
  const compiler = join(root, 'node_modules', '.bin', 'tsc')
  await promisify(execFile)(compiler, ['-p', join(root, 'test', 'tsconfig.json'), ...options, '--outDir', directory])
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'))
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module' }))
}

/** Node's arguments for a program below `test`, such as `host/main.ts`. `compiled`: the directory of `compileAll`. */
export const programArguments = (program: string, compiled = process.env.TEST_PROGRAMS): string[] =>
  compiled
    ? [join(compiled, 'test', program.replace(/\.ts$/, '.js'))]
    : ['--import', 'tsx', join(root, 'test', program)]
