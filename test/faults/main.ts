// `npm run faults -- --minutes 1 --seed N --nodes 3 --faults LIST`: injects faults and checks that no transaction is lost or applied twice.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { compileAll } from '../support/program.ts'
import { seedOf } from '../support/random.ts'
import { leaksIn } from '../support/secrets.ts'
import { choose, type FaultKind, faultKinds } from './faults.ts'
import { prepareMachine } from './machine.ts'
import { Report } from './report.ts'
import { Run } from './run.ts'

type Options = { minutes: number; seed: number; nodes: number; kinds: readonly FaultKind[]; keep: boolean }

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string' },
      nodes: { type: 'string', default: '3' },
      faults: { type: 'string' },
      keep: { type: 'boolean', default: false },
    },
  })
  const number = (name: string, text: string, least: number, max: number) => {
    const value = Number(text)
    if (!(value >= least && value <= max))
      throw new Error(`--${name} must be a number from ${least} to ${max}, received '${text}'`)
    return value
  }
  const seed = values.seed === undefined ? seedOf() : number('seed', values.seed, 0, 2 ** 31)
  return {
    seed,
    minutes: number('minutes', values.minutes, 0, 24 * 60),
    nodes: number('nodes', values.nodes, 2, 9),
    kinds: values.faults === undefined ? usual(seed) : choose(values.faults.split(','), faultKinds),
    keep: values.keep,
  }
}

/** Hubs that can be delayed are linked by proxies. Half of all runs have direct links instead. */
const usual = (seed: number) => faultKinds.filter(({ needs }) => needs !== 'links' || seed % 2 === 1)

async function main({ minutes, seed, nodes, kinds: desired, keep }: Options): Promise<void> {
  const report = new Report()
  const names = desired.map(({ name }) => name).join(',')
  const command = `npm run faults -- --minutes ${minutes} --seed ${seed} --nodes ${nodes} --faults ${names}`
  report.say(`seed ${seed}, ${nodes} nodes, ${minutes} minutes, faults ${names}`)
  // The process id in all names distinguishes the leftovers of this run from those of other runs.
  const directory = await mkdtemp(join(tmpdir(), `enmesh-${process.pid}-`))
  const remove = () => rm(directory, { recursive: true, force: true, maxRetries: 5 })
  let stopped = false
  /** Ended in reverse order. */
  const endings: (() => Promise<void>)[] = []
  const endAll = async () => {
    for (let ending = endings.pop(); ending; ending = endings.pop())
      await ending().catch((error) => report.violation(`clean-up failed: ${error.message}`))
  }
  let ended: Promise<void> | undefined
  /** Runs once; later calls, such as a second signal, wait for the first. */
  const end = () => {
    ended ??= endAll()
    return ended
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      stopped = true
      report.event(`${signal}: ending all processes`)
      void end()
        .then(remove)
        .finally(() => process.exit(130))
    })
  if (!process.env.TEST_PROGRAMS) {
    const programs = join(directory, 'programs')
    const compiling = compileAll(programs)
    endings.push(() => compiling.catch(() => {}))
    await compiling
    process.env.TEST_PROGRAMS = programs
  }
  const preparing = prepareMachine(nodes, desired, directory)
  endings.push(() => preparing.then(({ network }) => network.close()))
  const { missing, ...machine } = await preparing
  for (const line of missing) report.say(line)
  const run = new Run({ ...machine, seed, lasts: minutes * 60_000, nodes, directory, report })
  endings.push(() => run.end())
  try {
    if (!stopped) await run.play()
  } finally {
    await end()
  }
  if (stopped) return
  // The compiled tests contain keys.
  await rm(join(directory, 'programs'), { recursive: true, force: true })
  for (const leak of await leaksIn(directory)) report.violation(`a secret was written to ${leak}`)
  const failed = report.violations.length > 0
  if (failed) report.say(`\nFAILED. To repeat this run: ${command}`)
  if (failed || keep) report.say(`Data and logs of all nodes are in ${directory}`)
  else await remove()
  process.exitCode = failed ? 1 : 0
}

main(readOptions()).catch((error) => {
  process.stderr.write(`${error?.stack ?? error}\n`)
  process.exitCode = 2
})
