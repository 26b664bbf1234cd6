// `npm test`: runs the test files with Node's own runner. Usage: see `usage` below.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { mkdtemp, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { readArguments } from './arguments.ts'
import { compileAll } from './program.ts'

const usage = `npm test -- [--unit | --integration | FILE...] [--long] [--counts FILE]
  --unit         only test/unit
  --integration  only test/integration
  --long         full tests where a sample is the default (test/support/long.ts)
  --counts FILE  also write the number of passed and failed tests to FILE, as JSON`

const root = fileURLToPath(new URL('../../', import.meta.url))

const { values, positionals: named } = readArguments(usage, {
  unit: { type: 'boolean', default: false },
  integration: { type: 'boolean', default: false },
  long: { type: 'boolean', default: false },
  counts: { type: 'string' },
})

const below = (directory: string) =>
  readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => relative(root, join(root, directory, name)))
    .sort()

/** These install process-wide hooks, or are slow: each runs in a process of its own. */
const ALONE = /\/(?:control|host)-/
const GROUPS = 4

/** Of a file on Node 20 and 22, of a test on later ones: one that hangs must not use up all the time that CI has. */
const TIMEOUT_MS = 20 * 60_000

/** Modules that import several unit tests each: loading the library takes longer than most of the tests. */
async function grouped(files: string[], directory: string): Promise<string[]> {
  const groups = Array.from({ length: GROUPS }, (_, index) => files.filter((_, each) => each % GROUPS === index))
  return Promise.all(
    groups.map(async (group, index) => {
      const path = join(directory, `unit-${index + 1}.mjs`)
      const lines = group.map((file) => `import ${JSON.stringify(pathToFileURL(join(root, file)).href)}\n`)
      await writeFile(path, lines.join(''))
      return path
    }),
  )
}

async function unitFiles(directory: string): Promise<string[]> {
  const unit = below('test/unit')
  const others = unit.filter((file) => !ALONE.test(file))
  return [...unit.filter((file) => ALONE.test(file)), ...(await grouped(others, directory))]
}

async function chosenFiles(directory: string): Promise<string[]> {
  if (named.length > 0) return named
  const all = values.unit === values.integration
  // Longest first, so that both processes are busy until the end.
  return [
    ...(all || values.integration ? below('test/integration') : []),
    ...(all || values.unit ? await unitFiles(directory) : []),
  ]
}

const reporters = ['--test-reporter=spec', '--test-reporter-destination=stdout']
if (values.counts !== undefined) {
  const counter = new URL('./count-reporter.mjs', import.meta.url).href
  reporters.push(`--test-reporter=${counter}`, `--test-reporter-destination=${resolve(values.counts)}`)
}

const programs = await mkdtemp(join(await realpath(tmpdir()), 'enmesh-programs-'))
try {
  await compileAll(join(programs, 'all'))
  const files = await chosenFiles(programs)
  // Integration tests measure recovery in seconds on few cores: two files at a time.
  const options = ['--import', 'tsx', '--test', '--test-concurrency=2', ...reporters]
  if (!values.long) options.push(`--test-timeout=${TIMEOUT_MS}`)
  const child = spawn(process.execPath, [...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, TEST_PROGRAMS: join(programs, 'all'), ...(values.long && { LONG_TESTS: '1' }) },
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
  const [code] = await once(child, 'exit')
  process.exitCode = code ?? 1
} finally {
  await rm(programs, { recursive: true, force: true })
}
