// `npm run faults -- --minutes 1 --seed N --nodes 3 --faults LIST`: faults without mercy, and nothing lost, nothing twice.

import { parseArgs } from 'node:util'
import { temporaryFolder } from '../support/cluster.ts'
import { seedOf } from '../support/random.ts'
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
  const number = (name: string, text: string, least: number, most: number) => {
    const value = Number(text)
    if (!(value >= least && value <= most))
      throw new Error(`--${name} is a number from ${least} to ${most}, not ${text}`)
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

async function main({ minutes, seed, nodes, kinds: wanted, keep }: Options): Promise<void> {
  const report = new Report()
  const names = wanted.map(({ name }) => name).join(',')
  const command = `npm run faults -- --minutes ${minutes} --seed ${seed} --nodes ${nodes} --faults ${names}`
  report.say(`seed ${seed}, ${nodes} nodes, ${minutes} minutes, faults ${names}`)
  const [folder, remove] = await temporaryFolder()
  const { missing, ...machine } = await prepareMachine(nodes, wanted, folder)
  for (const line of missing) report.say(line)
  const run = new Run({ ...machine, seed, lasts: minutes * 60_000, nodes, folder, report })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      report.event(`${signal}: ending what was started`)
      void run
        .end()
        .then(remove)
        .finally(() => process.exit(130))
    })
  try {
    await run.play()
  } finally {
    await run.end()
  }
  const failed = report.violations.length > 0
  if (failed) report.say(`\nFAILED. Repeat it: ${command}`)
  if (failed || keep) report.say(`What every node and its servers wrote is in ${folder}`)
  else await remove()
  process.exitCode = failed ? 1 : 0
}

main(readOptions()).catch((error) => {
  process.stderr.write(`${error?.stack ?? error}\n`)
  process.exitCode = 2
})
