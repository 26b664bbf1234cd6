// When each local stream had reached which transaction, to about a second for what is young and to some percent of its age for what is
// old: how long a transaction has been stored.

import type { TableName } from '../../host/host.ts'
import { TableMap } from '../../mesh/table-map.ts'
import type { StreamPosition } from '../stream-metadata.ts'

/** `isFirst`: of what was stored before marks were made, it says nothing but that it is older. */
type Mark = { index: number; sequence: number; at: number; isFirst?: boolean }
type TableMarks = { epoch: string; marks: Mark[]; isNoted: boolean }

/** For each table. */
const MAX_MARKS = 128

export class GrowthMarks {
  readonly #tables = new TableMap<TableMarks>()

  /** Call about once a second for the streams that grew. `at`: ms. */
  note(positions: readonly (TableName & StreamPosition)[], at: number): void {
    for (const { database, table, epoch, index, sequence } of positions) {
      const known = this.#of({ database, table }, epoch)
      if ((known.marks.at(-1)?.index ?? -1) >= index) continue
      insert(known.marks, { index, sequence, at, ...(!known.isNoted && { isFirst: true }) }, at)
      known.isNoted = true
    }
  }

  /** The first transaction of this message is this one, and was stored at that time (ms). `now`: ms. */
  noteMessage(table: TableName, epoch: string, { index, sequence, at }: Omit<Mark, 'isFirst'>, now: number): void {
    const { marks } = this.#of(table, epoch)
    if (!marks.some((each) => each.index === index && !each.isFirst)) insert(marks, { index, sequence, at }, now)
  }

  /** The transaction after `index` was stored before marks were made, so that only its message tells when. */
  isOlder(table: TableName, epoch: string, index: number): boolean {
    const known = this.#tables.find(table)
    return known?.epoch !== epoch || known.marks.find((mark) => mark.index > index)?.isFirst !== undefined
  }

  #of({ database, table }: TableName, epoch: string): TableMarks {
    const known = this.#tables.find({ database, table })
    if (known?.epoch === epoch) return known
    const created = { epoch, marks: [], isNoted: false }
    this.#tables.set({ database, table }, created)
    return created
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

/** In the order of the transactions. */
function insert(marks: Mark[], mark: Mark, now: number): void {
  const behind = marks.findIndex(({ index }) => index >= mark.index)
  marks.splice(behind < 0 ? marks.length : behind, 0, mark)
  if (marks.length > MAX_MARKS) marks.splice(leastNeeded(marks, now), 1)
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
