// Programs of the tests that run in processes of their own: they start often, and on few cores their starts must not be what
// is measured. So a whole run has everything compiled once; a file that is run alone has its programs through tsx.

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

/** `lib` and `test` into `directory`, which it makes. */
export async function compileAll(directory: string): Promise<void> {
  const options = Object.entries(OPTIONS).flatMap(([name, value]) => [`--${name}`, String(value)])
  const compiler = join(root, 'node_modules', '.bin', 'tsc')
  await promisify(execFile)(compiler, ['-p', join(root, 'test', 'tsconfig.json'), ...options, '--outDir', directory])
  await symlink(join(root, 'node_modules'), join(directory, 'node_modules'))
  await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module' }))
}

/** Node's arguments for a program, `host/main.ts` below `test`; `compiled`: where everything was compiled to. */
export const programArguments = (program: string, compiled = process.env.TEST_PROGRAMS): string[] =>
  compiled
    ? [join(compiled, 'test', program.replace(/\.ts$/, '.js'))]
    : ['--import', 'tsx', join(root, 'test', program)]
