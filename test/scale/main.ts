// `npm run scale`: time, memory and idle processor time for many tables and many nodes, each in
// three steps that show growth faster than linear.

import { parseArgs } from 'node:util'
import { manyNodes } from './many-nodes.ts'
import { manyTables } from './many-tables.ts'

const { values } = parseArgs({
  options: { tables: { type: 'string', default: '1000' }, nodes: { type: 'string', default: '20' } },
})

function whole(name: string, text: string, least: number): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && (value === 0 || value >= least)) return value
  process.stderr.write(`--${name} must be 0, or ${least} or more, received '${text}'\n`)
  process.exit(2)
}

const say = (line: string) => void process.stdout.write(`${line}\n`)
const tables = whole('tables', values.tables, 4)
const nodes = whole('nodes', values.nodes, 4)

/** A quarter, half, and all of it. */
const steps = (all: number) => [Math.round(all / 4), Math.round(all / 2), all]

async function table(title: string, all: number, measure: (count: number) => Promise<Record<string, number>>) {
  if (all === 0) return
  say(`\n${title}`)
  for (const [index, count] of steps(all).entries()) {
    const row = { count, ...(await measure(count)) }
    if (index === 0) say(`| ${Object.keys(row).join(' | ')} |\n|${'---|'.repeat(Object.keys(row).length)}`)
    const cells = Object.values(row).map((value) => (Number.isInteger(value) ? value : value.toFixed(2)))
    say(`| ${cells.join(' | ')} |`)
  }
}

await table('Tables between two nodes, both ways, in one configure_cluster', tables, (count) => manyTables(count))
await table('Nodes in a full mesh, one table each way', nodes, (count) => manyNodes(count))
