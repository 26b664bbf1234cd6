// When each local stream had reached which transaction, to about a second for what is young and to some percent of its age for what is
// old: how long a transaction has been stored.

import type { TableName } from '../../host/host.ts'
import { TableMap } from '../../mesh/table-map.ts'
import type { StreamPosition } from '../stream-metadata.ts'

type Mark = { index: number; sequence: number; at: number }
type TableMarks = { epoch: string; marks: Mark[] }

/** For each table. */
const MAX_MARKS = 128

export class GrowthMarks {
  readonly #tables = new TableMap<TableMarks>()

  /** Call about once a second for the streams that grew. `at`: ms. */
  note(positions: readonly (TableName & StreamPosition)[], at: number): void {
    for (const { database, table, epoch, index, sequence } of positions) {
      let known = this.#tables.find({ database, table })
      if (known?.epoch !== epoch) {
        known = { epoch, marks: [] }
        this.#tables.set({ database, table }, known)
      }
      const { marks } = known
      if ((marks.at(-1)?.index ?? -1) >= index) continue
      marks.push({ index, sequence, at })
      if (marks.length > MAX_MARKS) marks.splice(leastNeeded(marks, at), 1)
    }
  }

  /** By when the transaction after `index` was stored, as far as that is known. */
  storedBy(table: TableName, index: number): number | undefined {
    return this.#tables.find(table)?.marks.find((mark) => mark.index > index)?.at
  }

  /** The last message of this epoch that is known to have been stored at that time (ms), or before. */
  lastStoredAt(table: TableName, epoch: string, at: number): number | undefined {
    const known = this.#tables.find(table)
    return known?.epoch === epoch ? known.marks.findLast((mark) => mark.at <= at)?.sequence : undefined
  }
}

/** The mark whose neighbours are nearest to each other in proportion to their age. The first and the last one stay. */
function leastNeeded(marks: readonly Mark[], now: number): number {
  let found = 1
  let least = Number.POSITIVE_INFINITY
  for (let at = 1; at < marks.length - 1; at++) {
    const [before, after] = [marks[at - 1]!.at, marks[at + 1]!.at]
    // ms: of the same turn, all would be equally near.
    const distance = (after - before) / (now - after + 1)
    if (distance >= least) continue
    least = distance
    found = at
  }
  return found
}
