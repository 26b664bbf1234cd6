// `npm run faults -- --minutes 1 --seed N --nodes 3 --faults LIST`: faults without mercy, and nothing lost, nothing twice.

import { parseArgs } from 'node:util'
import { temporaryFolder } from '../support/cluster.ts'
import { seedOf } from '../support/random.ts'
import { choose, type FaultKind, faultKinds } from './faults.ts'
import { Loopback } from './network.ts'
import { Report } from './report.ts'
import { Run } from './run.ts'

type Options = { minutes: number; seed: number; nodes: number; kinds: readonly FaultKind[]; keep: boolean }

function options(): Options {
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
  return {
    minutes: number('minutes', values.minutes, 0, 24 * 60),
    seed: values.seed === undefined ? seedOf() : number('seed', values.seed, 0, 2 ** 31),
    nodes: number('nodes', values.nodes, 2, 9),
    kinds: values.faults === undefined ? faultKinds : choose(values.faults.split(','), faultKinds),
    keep: values.keep,
  }
}

async function main({ minutes, seed, nodes, kinds, keep }: Options): Promise<void> {
  const names = kinds.map(({ name }) => name).join(',')
  const command = `npm run faults -- --minutes ${minutes} --seed ${seed} --nodes ${nodes} --faults ${names}`
  const report = new Report()
  report.say(`seed ${seed}, ${nodes} nodes, ${minutes} minutes, faults ${names}`)
  const [folder, remove] = await temporaryFolder()
  const run = new Run({ seed, lasts: minutes * 60_000, nodes, kinds, folder, network: new Loopback(), report })
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

main(options()).catch((error) => {
  process.stderr.write(`${error?.message ?? error}\n`)
  process.exitCode = 2
})
