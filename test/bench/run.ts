// Measures parts of the module by name, all of them by default. `--json` prints JSON alone; `--on there` measures of the
// control plane, of copies and of comparisons only where the column `on` holds that text. What the other options mean is in `report.ts`.

import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { catchUp } from './catch-up.ts'
import { reasonOf } from './compare.ts'
import { control } from './control.ts'
import { copy } from './copy.ts'
import { endToEnd } from './end-to-end.ts'
import { fanOut } from './fan-out.ts'
import { idle } from './idle.ts'
import { inserts } from './inserts.ts'
import { latency } from './latency.ts'
import { closeAll } from './nodes.ts'
import { publish } from './publish.ts'
import { replicated } from './replicated.ts'
import { type Part, type Row, tableWriter, targetLine, toJson } from './report.ts'
import { singleMessages } from './single.ts'
import { startUp } from './start-up.ts'
import { status } from './status.ts'
import { verify } from './verify.ts'

const parts: readonly Part[] = [
  control,
  publish,
  singleMessages,
  endToEnd,
  latency,
  replicated,
  catchUp,
  inserts,
  copy,
  verify,
  fanOut,
  idle,
  startUp,
  status,
]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    entries: { type: 'string', default: '100,10000' },
    on: { type: 'string', default: '' },
    rounds: { type: 'string', default: '5' },
    'warm-up': { type: 'string', default: '400' },
    seconds: { type: 'string', default: '1' },
    samples: { type: 'string', default: '2000' },
    backlog: { type: 'string', default: '500000' },
    rows: { type: 'string', default: '100000' },
    subscriptions: { type: 'string', default: '1000' },
  },
})

function whole(name: string, text: string, least: number): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= least) return value
  console.error(`--${name} must be an integer, ${least} or more, received '${text}'`)
  process.exit(2)
}

function positive(name: string, text: string): number {
  const value = Number(text)
  if (value > 0 && value <= 60) return value
  console.error(`--${name} must be a number above 0, 60 at most, received '${text}'`)
  process.exit(2)
}

const unknown = positionals.filter((name) => !parts.some((part) => part.name === name))
if (unknown.length > 0) {
  console.error(`Unknown part '${unknown.join("', '")}'. Parts: ${parts.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
const options = {
  entries: values.entries.split(',').map((text) => whole('entries', text, 1)),
  on: values.on,
  rounds: whole('rounds', values.rounds, 1),
  warmUp: whole('warm-up', values['warm-up'], 0),
  seconds: positive('seconds', values.seconds),
  samples: whole('samples', values.samples, 1),
  backlog: whole('backlog', values.backlog, 1_000),
  rows: whole('rows', values.rows, 1_000),
  subscriptions: whole('subscriptions', values.subscriptions, 1),
}

// Servers run in separate process groups: Ctrl-C reaches only this process, perhaps twice.
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)
  process.on(signal, () => void closeAll().finally(() => process.exit(code)))

// An unhandled rejection is a bug of the benchmark, which must not leave servers behind.
process.on('uncaughtException', (error) => {
  console.error(error)
  void closeAll().finally(() => process.exit(1))
})

/** A part that fails yields a row with the reason, and the next part runs. */
async function* rowsOf(part: Part): AsyncIterable<Row> {
  try {
    yield* part.run(options)
  } catch (error) {
    yield { what: part.name, on: 'all', list: '-', entries: 0, figures: {}, failed: reasonOf(error) }
  }
}

const say = (text: string) => values.json || process.stdout.write(`${text}\n`)
const machine = { node: process.version, cpus: cpus().length, cpu: cpus()[0]?.model ?? 'unknown' }
const found: object[] = []
const summary: string[] = []
const started = performance.now()
const secondsSince = (time: number) => Math.round((performance.now() - time) / 1_000)
let failures = 0
let missed = 0
say(`Node ${machine.node}, ${machine.cpus} x ${machine.cpu}; medians of ${options.rounds} rounds after a warm-up`)
for (const part of parts) {
  if (positionals.length > 0 && !positionals.includes(part.name)) continue
  say(`\n${part.name}\n${part.legend.map((line) => `  ${line}`).join('\n')}`)
  const write = tableWriter(part.columns, say)
  const began = performance.now()
  for await (const row of rowsOf(part)) {
    found.push(toJson(part.name, row))
    if (row.failed !== undefined) failures++
    if (row.figures.met === false) missed++
    if (typeof row.figures.met === 'boolean') summary.push(targetLine(part.name, row))
    write(row)
  }
  say(`\n${part.name} took ${secondsSince(began)} s`)
}
if (summary.length > 0) say(`\ntargets\n${summary.join('\n')}`)
if (missed > 0) say(`\n${missed} targets are missed`)
if (failures > 0) say(`\n${failures} measurements failed`)
say(`\nall took ${secondsSince(started)} s`)
if (values.json) process.stdout.write(`${JSON.stringify({ machine, rows: found }, undefined, 2)}\n`)
process.exitCode = failures > 0 ? 1 : 0
