// When each local stream had reached which transaction, to about a second: how long a transaction has been waiting for a node.

import type { TableName } from '../../host/host.ts'
import { TableMap } from '../../mesh/table-map.ts'

type Mark = { index: number; at: number }

/** For each table. Of more, the older ones are thinned out. */
const MAX_MARKS = 128

export class GrowthMarks {
  readonly #tables = new TableMap<{ epoch: string; marks: Mark[] }>()

  /** Call about once a second for the streams that grew. `at`: ms. */
  note(positions: readonly (TableName & { epoch: string; index: number })[], at: number): void {
    for (const { database, table, epoch, index } of positions) {
      let known = this.#tables.find({ database, table })
      if (known?.epoch !== epoch) {
        known = { epoch, marks: [] }
        this.#tables.set({ database, table }, known)
      }
      const { marks } = known
      if ((marks.at(-1)?.index ?? -1) >= index) continue
      marks.push({ index, at })
      if (marks.length > MAX_MARKS) known.marks = marks.filter((_, at) => at % 2 === 0 || at > MAX_MARKS / 2)
    }
  }

  /** By when the transaction after `index` was stored, as far as that is known. */
  storedBy(table: TableName, index: number): number | undefined {
    return this.#tables.find(table)?.marks.find((mark) => mark.index > index)?.at
  }
}
