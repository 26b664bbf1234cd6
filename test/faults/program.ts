// The program of the nodes' processes, compiled once a run: they start often, and on few cores their starts must not be what
// a run measures.

import { symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { command } from './command.ts'

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

/** Into `folder`, which it makes; resolves with the file to run. */
export async function compileProgram(folder: string): Promise<string> {
  const options = Object.entries(OPTIONS).flatMap(([name, value]) => [`--${name}`, String(value)])
  const compiler = join(root, 'node_modules', '.bin', 'tsc')
  await command(compiler, '-p', join(root, 'test', 'tsconfig.json'), ...options, '--outDir', folder)
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  await writeFile(join(folder, 'package.json'), JSON.stringify({ type: 'module' }))
  return join(folder, 'test', 'faults', 'node-process.js')
}
