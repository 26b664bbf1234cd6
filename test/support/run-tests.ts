// Runs the whole suite with Node's own runner: every *.test.ts below test/unit and test/integration, or the files named. With
// `--long` nothing is left to samples (test/support/long.ts).

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { compileAll } from './program.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))
const isLong = process.argv.includes('--long')
const named = process.argv.slice(2).filter((argument) => argument !== '--long')

const below = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => relative(root, join(root, folder, name)))
    .sort()

/** These have hooks of their own for the whole process, or take long by themselves. */
const ALONE = /\/(?:control|host)-/
const GROUPS = 4

/** Files of unit tests that import several others: loading us takes longer than most of them do. */
async function grouped(files: string[], folder: string): Promise<string[]> {
  const groups = Array.from({ length: GROUPS }, (_, index) => files.filter((_, each) => each % GROUPS === index))
  return Promise.all(
    groups.map(async (group, index) => {
      const path = join(folder, `unit-${index + 1}.mjs`)
      const lines = group.map((file) => `import ${JSON.stringify(pathToFileURL(join(root, file)).href)}\n`)
      await writeFile(path, lines.join(''))
      return path
    }),
  )
}

async function allFiles(folder: string): Promise<string[]> {
  const unit = below('test/unit')
  const alone = unit.filter((file) => ALONE.test(file))
  // What takes longest first: what is left for the end should be short.
  return [
    ...below('test/integration'),
    ...alone,
    ...(await grouped(
      unit.filter((file) => !ALONE.test(file)),
      folder,
    )),
  ]
}

const programs = await mkdtemp(join(await realpath(tmpdir()), 'enmesh-programs-'))
try {
  await compileAll(join(programs, 'all'))
  const files = named.length > 0 ? named : await allFiles(programs)
  // Integration tests measure recovery in seconds on few cores: two files at a time.
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--test', '--test-concurrency=2', '--test-reporter=spec', ...files],
    {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, TEST_PROGRAMS: join(programs, 'all'), ...(isLong && { LONG_TESTS: '1' }) },
    },
  )
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
} finally {
  await rm(programs, { recursive: true, force: true })
}
