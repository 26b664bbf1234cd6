// Runs the suite several times in different environments, and prints one line for each run at the end.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const runner = join(root, 'test', 'support', 'run-tests.ts')

type Counts = { passed: number; failed: number }

/** `node`: path of the binary, default: this process's. `problem`: why this run cannot be started. */
export type SuiteRun = { title: string; node?: string; env?: NodeJS.ProcessEnv; problem?: string }

const say = (line: string) => void process.stdout.write(`${line}\n`)

function duration(ms: number): string {
  const seconds = Math.round(ms / 1_000)
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}

/** Resolves with the exit code of the runner, which shares this terminal. Passes signals on to it. */
async function exitCode(node: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const child = spawn(node, ['--import', 'tsx', runner, ...args], { cwd: root, stdio: 'inherit', env })
  const kill = (signal: NodeJS.Signals) => void child.kill(signal)
  const signals = ['SIGINT', 'SIGTERM'] as const
  for (const signal of signals) process.on(signal, kill)
  try {
    const [code] = await once(child, 'exit')
    return code ?? 1
  } finally {
    for (const signal of signals) process.off(signal, kill)
  }
}

/** Undefined when the runner did not finish. */
async function readCounts(file: string): Promise<Counts | undefined> {
  try {
    return JSON.parse(await readFile(file, 'utf8'))
  } catch {
    return undefined
  }
}

/** Resolves with the line of the summary, and whether the run passed. */
async function runOne(run: SuiteRun, args: readonly string[], directory: string): Promise<[string, boolean]> {
  const { title, problem, node = process.execPath } = run
  if (problem !== undefined) return [`${title}: not run: ${problem}`, false]
  say(`\n== ${title}`)
  const [file, started] = [join(directory, 'counts.json'), performance.now()]
  await rm(file, { force: true })
  const code = await exitCode(node, [...args, '--counts', file], { ...process.env, ...run.env })
  const counts = await readCounts(file)
  const took = duration(performance.now() - started)
  if (!counts) return [`${title}: ended without a result (exit code ${code}), ${took}`, false]
  // A file can fail outside its tests; then only the exit code shows it.
  const exit = code !== 0 && counts.failed === 0 ? ` (exit code ${code})` : ''
  return [`${title}: ${counts.passed} passed, ${counts.failed} failed${exit}, ${took}`, code === 0]
}

/** Runs all suites one after the other, also after a failure. `args`: for the runner. Resolves whether all passed. */
export async function runSuites(runs: readonly SuiteRun[], args: readonly string[]): Promise<boolean> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-counts-'))
  const lines: string[] = []
  let isPassed = true
  let stopped = false
  const stop = () => {
    stopped = true
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    for (const run of runs) {
      if (stopped) break
      const [line, passed] = await runOne(run, args, directory)
      lines.push(line)
      isPassed &&= passed
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
  say(`\n${lines.join('\n')}`)
  return isPassed && !stopped
}
