// `npm test`: runs the test files with Node's own runner. Usage: see `usage` below.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { readArguments } from './arguments.ts'
import { compileAll } from './program.ts'

const usage = `npm test -- [--unit | --integration | FILE...] [--long] [--counts FILE]
  --unit         only test/unit
  --integration  only test/integration
  --long         whole tests where a sample is the default (test/support/long.ts)
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

/** These files install process-wide hooks, or are slow: each runs in a separate process. */
const SEPARATE = /\/(?:control|host)-/
const GROUPS = 6

/** These integration files take longest, and start first, so that all processes are busy until the end. */
const LONGEST = ['life', 'faults', 'http-process', 'tls', 'servers', 'replication', 'outages', 'names']
/** Integration tests mostly wait for servers that start, hang or recover. */
const INTEGRATION_CONCURRENCY = 4
/** Unit tests mostly wait: two at a time leave two thirds of two cores idle. More than the groups, so that separate files start with them. */
const UNIT_CONCURRENCY = 8

/** For each file on Node 20 and 22, for each test on later versions: a test that hangs must not use up the time limit of CI. */
const TIMEOUT_MS = 20 * 60_000

type Phase = { files: string[]; concurrency: number }
type Counts = { passed: number; failed: number }

/** A module that imports these files. The runner sorts what it is given by path. */
async function importing(files: string[], path: string): Promise<string> {
  const lines = files.map((file) => `import ${JSON.stringify(pathToFileURL(join(root, file)).href)}\n`)
  await writeFile(path, lines.join(''))
  return path
}

/** Modules that import several unit tests each, because loading the library takes longer than most of the tests. */
function grouped(files: string[], directory: string): Promise<string[]> {
  const groups = Array.from({ length: GROUPS }, (_, index) => files.filter((_, each) => each % GROUPS === index))
  return Promise.all(groups.map((group, index) => importing(group, join(directory, `unit-${index + 1}.mjs`))))
}

/** One module for each file, in the order in which they start. */
function integrationFiles(directory: string): Promise<string[]> {
  const all = below('test/integration')
  const longest = LONGEST.map((name) => join('test/integration', `${name}.test.ts`))
  const files = [...longest.filter((file) => all.includes(file)), ...all.filter((file) => !longest.includes(file))]
  const nameOf = (file: string, index: number) =>
    `integration-${String(index).padStart(2, '0')}-${basename(file, '.ts')}.mjs`
  return Promise.all(files.map((file, index) => importing([file], join(directory, nameOf(file, index)))))
}

/** The groups take longest and start first, so that all processes are busy until the end. */
async function unitFiles(directory: string): Promise<string[]> {
  const unit = below('test/unit')
  const others = unit.filter((file) => !SEPARATE.test(file))
  return [...(await grouped(others, directory)), ...unit.filter((file) => SEPARATE.test(file))]
}

async function chosenPhases(directory: string): Promise<Phase[]> {
  if (named.length > 0) return [{ files: named, concurrency: INTEGRATION_CONCURRENCY }]
  const all = values.unit === values.integration
  const phases: Phase[] = []
  if (all || values.unit) phases.push({ files: await unitFiles(directory), concurrency: UNIT_CONCURRENCY })
  if (all || values.integration)
    phases.push({ files: await integrationFiles(directory), concurrency: INTEGRATION_CONCURRENCY })
  return phases
}

const counter = new URL('./count-reporter.mjs', import.meta.url).href
const loader = new URL('./compiled-sources.mjs', import.meta.url).href

/** Resolves with the exit code of the test runner. */
async function runPhase({ files, concurrency }: Phase, directory: string, countsFile: string): Promise<number> {
  const options = ['--import', loader, '--test', `--test-concurrency=${concurrency}`]
  options.push('--test-reporter=spec', '--test-reporter-destination=stdout')
  options.push(`--test-reporter=${counter}`, `--test-reporter-destination=${countsFile}`)
  if (!values.long) options.push(`--test-timeout=${TIMEOUT_MS}`)
  const child = spawn(process.execPath, [...options, ...files], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, TEST_PROGRAMS: join(directory, 'all'), ...(values.long && { LONG_TESTS: '1' }) },
  })
  const kill = (signal: NodeJS.Signals) => {
    interrupted = true
    child.kill(signal)
  }
  for (const signal of signals) process.on(signal, kill)
  try {
    const [code] = await once(child, 'exit')
    return code ?? 1
  } finally {
    for (const signal of signals) process.off(signal, kill)
  }
}

const signals = ['SIGINT', 'SIGTERM'] as const
let interrupted = false
/** Undefined as soon as one phase ended without a result. */
let total: Counts | undefined = { passed: 0, failed: 0 }
const programs = await mkdtemp(join(await realpath(tmpdir()), 'enmesh-programs-'))
try {
  await compileAll(join(programs, 'all'))
  const countsFile = join(programs, 'counts.json')
  const phases = await chosenPhases(programs)
  for (const phase of phases) {
    if (interrupted) break
    await rm(countsFile, { force: true })
    const code = await runPhase(phase, programs, countsFile)
    if (code !== 0) process.exitCode = code
    const counts = await readFile(countsFile, 'utf8')
      .then<Counts>(JSON.parse)
      .catch(() => undefined)
    total = total && counts && { passed: total.passed + counts.passed, failed: total.failed + counts.failed }
  }
  if (interrupted) total = undefined
  if (total && values.counts !== undefined) await writeFile(values.counts, JSON.stringify(total))
  if (total && phases.length > 1) process.stdout.write(`ℹ both: ${total.passed} passed, ${total.failed} failed\n`)
} finally {
  await rm(programs, { recursive: true, force: true })
}
