// `npm run bench`: compiles everything, as it is published, and measures that: what translates on the fly makes slower code.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { temporaryDirectory } from '../support/cluster.ts'
import { compileAll } from '../support/program.ts'

const [directory, remove] = await temporaryDirectory()
try {
  await compileAll(directory)
  const child = spawn(process.execPath, [join(directory, 'test', 'bench', 'run.js'), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, TEST_PROGRAMS: directory },
  })
  // It ends what it has started, and then itself; so do we.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  process.exitCode = await new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? 1)))
} finally {
  await remove()
}
