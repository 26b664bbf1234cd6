// `npm run bench`: compiles everything as for publication and measures that, because tsx produces slower code.

import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compileAll } from '../support/program.ts'

const directory = await mkdtemp(join(tmpdir(), 'enmesh-bench-'))
try {
  await compileAll(directory)
  const child = spawn(process.execPath, [join(directory, 'test', 'bench', 'run.js'), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, TEST_PROGRAMS: directory },
  })
  // The child ends its processes and then itself; this process waits for it.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  process.exitCode = await new Promise<number>((resolve) => child.once('exit', (code) => resolve(code ?? 1)))
} finally {
  await rm(directory, { recursive: true, force: true })
}
