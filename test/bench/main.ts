// `npm run bench [-- PART...]`: measures parts of the module by name, all of them by default. `--json` prints JSON
// alone; `--on there` measures only where the column `on` holds that text.

import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { control } from './control.ts'
import { type Part, tableWriter, toJson } from './report.ts'

const parts: readonly Part[] = [control]

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    entries: { type: 'string', default: '100,1000,10000' },
    on: { type: 'string', default: '' },
    rounds: { type: 'string', default: '7' },
    'warm-up': { type: 'string', default: '1000' },
  },
})

function whole(name: string, text: string, least: number): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= least) return value
  console.error(`--${name} must be an integer, ${least} or more, received '${text}'`)
  process.exit(2)
}

const unknown = positionals.filter((name) => !parts.some((part) => part.name === name))
if (unknown.length > 0) {
  console.error(`There is no part '${unknown.join("', '")}'. Parts: ${parts.map(({ name }) => name).join(', ')}`)
  process.exit(2)
}
const options = {
  entries: values.entries.split(',').map((text) => whole('entries', text, 1)),
  on: values.on,
  rounds: whole('rounds', values.rounds, 1),
  warmUp: whole('warm-up', values['warm-up'], 0),
}

const say = (text: string) => values.json || process.stdout.write(`${text}\n`)
const machine = { node: process.version, cpus: cpus().length, cpu: cpus()[0]?.model ?? 'unknown' }
const found: object[] = []
let failures = 0
say(`Node ${machine.node}, ${machine.cpus} x ${machine.cpu}; medians of ${options.rounds} rounds after a warm-up`)
for (const part of parts) {
  if (positionals.length > 0 && !positionals.includes(part.name)) continue
  say(`\n${part.name}\n${part.legend.map((line) => `  ${line}`).join('\n')}`)
  const write = tableWriter(say)
  for await (const row of part.run(options)) {
    found.push(toJson(part.name, row))
    if (row.failed !== undefined) failures++
    write(row)
  }
}
if (failures > 0) say(`\n${failures} measurements failed`)
if (values.json) process.stdout.write(`${JSON.stringify({ machine, rows: found }, undefined, 2)}\n`)
process.exitCode = failures > 0 ? 1 : 0
