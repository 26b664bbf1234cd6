// The comparison of two equal tables.

import { subscribe } from '../support/cluster.ts'
import { atLeast } from './compare.ts'
import { measure } from './measure.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { dog, FilledHost, GeneratedHost, type RowsHost } from './rows-host.ts'

/** Bytes of a row. */
const SIZE = 200
const text = 'x'.repeat(SIZE - 10)
const target = atLeast(300_000)

async function* rowsOf(
  scene: Scene,
  options: PartOptions,
  on: string,
  create: (rows: number) => RowsHost,
): AsyncIterable<Row> {
  const { rows } = options
  const [one, two] = await startNodes(scene, [create(rows), create(rows)])
  await subscribe(two, one, { [dog.table]: 'subscribe' })
  const run = async () => {
    const result = await two.cluster.verify({ node: one.name, ...dog })
    const { missingHere, missingThere, different, inFlight } = result
    if (result.rows !== rows || missingHere + missingThere + different + inFlight > 0)
      throw new Error(`the tables are not equal: ${JSON.stringify(result)}`)
  }
  const { ms, 'cpu us/entry': cpu } = await measure({ run }, rows, options)
  const rate = (rows * 1_000) / ms!
  const figures = { enmesh: rate, target: target.text, met: target.met(rate), 'cpu us/row': cpu! }
  yield { what: 'verify, rows/s', on, list: '-', entries: rows, figures }
}

export const verify: Part = {
  name: 'verify',
  legend: [
    `Two nodes compare equal tables with rows of ${SIZE} bytes, of which each node reads all; both managers in one process. Rows are those of`,
    'one table. MemoryHost stores the rows; no database: rows are created when they are read.',
  ],
  columns: ['what', 'on', 'of', 'rows'],
  async *run(options) {
    yield* playing((scene) => rowsOf(scene, options, 'MemoryHost', (rows) => new FilledHost(rows, text)))
    yield* playing((scene) => rowsOf(scene, options, 'no database', (rows) => new GeneratedHost(rows, text)))
  },
}
