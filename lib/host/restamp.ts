// The way back after a wrong clock: rewrites row timestamps of the future, and the transactions that bring the rewritten rows to
// the peers. Pure: the host reads and stores the rows in one transaction of its own.
//
// One restamp, step by step. The clock of node1 was two days ahead for an hour, and is correct again at time N:
// 1. `limit` is N plus `maxClockDrift`: exactly the timestamps above it are quarantined by peers with a correct clock.
// 2. Every row timestamp above `limit` becomes one above everything that this node has seen below the limit, so about N. Puts and
//    deletes get the first of two new timestamps, attribute updates that are newer than their row get the second.
// 3. The outbox gets transactions that put those rows. Each names the timestamps that it voids: those of node1 above `limit`. Entries
//    that are in the outbox already stay: the streams carry them first, so a peer meets them before the range that voids them.
// 4. A peer that stored voided timestamps (because its clock was ahead as well) lowers them before it merges the row (`mergeRow`),
//    drops voided transactions from its quarantine, and ignores those that arrive again. The checkpoint remembers the range together
//    with the position of the first transaction that named it: what node1 commits two days later with a timestamp in the range
//    comes after that position and is valid.
// Rows with timestamps that another node issued above the limit are rewritten here too, and voided by the restamp of that node.

import { randomUUID } from 'node:crypto'
import type {
  RestampedRows,
  RestampPass,
  Restamp as RestampPort,
  TableRow,
  Timestamp,
  Transaction,
  VoidedRange,
  Write,
} from './host.ts'
import { type HybridClock, makeTimestamp, wallTimeOf } from './hybrid-clock.ts'
import { isIssuedBy, lowerRow, mergeRow, type RowChange } from './merge-row.ts'

export type RestampOptions = {
  node: string
  /** ms since 1970: later timestamps are rewritten. */
  limit: number
  /** The highest timestamp that the local clock issued. */
  highest: Timestamp
  /** A clock at the present time, above the timestamps of the peers. Called once for each pass. */
  createClock(): HybridClock
}

/** Bytes of records in one transaction; a larger record is alone. */
const MAX_TRANSACTION_BYTES = 1024 * 1024
const MAX_TRANSACTION_ROWS = 1_000

export class Restamp implements RestampPort {
  readonly #options: RestampOptions
  #result: RestampedRows | undefined
  #clock: HybridClock | undefined

  constructor(options: RestampOptions) {
    this.#options = options
  }

  get limit(): number {
    return this.#options.limit
  }

  begin(): RestampPass {
    return new Pass(this.#options, (result, clock) => {
      this.#result = result
      this.#clock = clock
    })
  }

  /** The last finished pass. */
  get result(): RestampedRows | undefined {
    return this.#result
  }

  /** The clock above every timestamp that is left. */
  get clock(): HybridClock | undefined {
    return this.#clock
  }
}

class Pass implements RestampPass {
  readonly #options: RestampOptions
  readonly #onFinish: (result: RestampedRows, clock: HybridClock) => void
  readonly #rows: TableRow[] = []
  #highestKept: Timestamp = ''
  #highestVoided: Timestamp

  constructor(options: RestampOptions, onFinish: (result: RestampedRows, clock: HybridClock) => void) {
    this.#options = options
    this.#onFinish = onFinish
    this.#highestVoided = options.highest
  }

  add(tableRow: TableRow): void {
    const { row } = tableRow
    let isAffected = false
    for (const timestamp of row.updated ? [row.timestamp, ...Object.values(row.updated)] : [row.timestamp]) {
      if (this.#isAbove(timestamp)) {
        isAffected = true
        if (isIssuedBy(this.#options.node, timestamp) && timestamp > this.#highestVoided)
          this.#highestVoided = timestamp
      } else if (timestamp > this.#highestKept) this.#highestKept = timestamp
    }
    if (isAffected) this.#rows.push(tableRow)
  }

  finish(): RestampedRows {
    const { node, limit, createClock } = this.#options
    const clock = createClock()
    clock.resume(this.#highestKept)
    const [ofRows, ofUpdates] = [clock.timestamp(), clock.timestamp()]
    const voids: VoidedRange = { node, from: makeTimestamp(limit + 1, 0, ''), to: this.#highestVoided }
    const rows: TableRow[] = []
    const outgoing = new Map<string, { whole: TransactionBuilder; updates: TransactionBuilder }>()
    for (const each of this.#rows) {
      const { database, table } = each
      const key = JSON.stringify([database, table])
      const builders = outgoing.get(key) ?? {
        whole: new TransactionBuilder(ofRows, voids),
        updates: new TransactionBuilder(ofUpdates, voids),
      }
      outgoing.set(key, builders)
      let row = lowerRow(each.row, this.#isAbove)
      for (const change of this.#changes(each, ofRows, ofUpdates)) {
        row = mergeRow(row, change)
        builders[change.operation === 'update' ? 'updates' : 'whole'].add(each, change)
      }
      rows.push({ ...each, row })
    }
    const transactions = [...outgoing.values()].flatMap(({ whole, updates }) => [...whole.result, ...updates.result])
    const result = { rows, transactions, lastTimestamp: ofUpdates }
    this.#onFinish(result, clock)
    return result
  }

  readonly #isAbove = (timestamp: Timestamp): boolean => wallTimeOf(timestamp) > this.#options.limit

  #changes({ primaryKey, row }: TableRow, ofRows: Timestamp, ofUpdates: Timestamp): RowChange[] {
    const { timestamp, record, updated = {} } = row
    const changes: RowChange[] = []
    if (this.#isAbove(timestamp))
      changes.push(
        record ? { operation: 'put', timestamp: ofRows, record } : { operation: 'delete', timestamp: ofRows },
      )
    const names = Object.keys(updated).filter((name) => this.#isAbove(updated[name]!))
    if (names.length > 0) {
      const attributes = Object.fromEntries([...names, primaryKey].map((name) => [name, record?.[name]]))
      changes.push({ operation: 'update', timestamp: ofUpdates, record: attributes })
    }
    return changes
  }
}

/** Joins changes of one table to transactions of limited size. */
class TransactionBuilder {
  readonly result: Transaction[] = []
  readonly #timestamp: Timestamp
  readonly #voids: VoidedRange
  #bytes = 0
  #rows = 0

  constructor(timestamp: Timestamp, voids: VoidedRange) {
    this.#timestamp = timestamp
    this.#voids = voids
  }

  add({ database, table, key }: TableRow, change: RowChange): void {
    const bytes = change.operation === 'delete' ? 0 : sizeOf(change.record)
    const isFull = this.#bytes + bytes > MAX_TRANSACTION_BYTES || this.#rows >= MAX_TRANSACTION_ROWS
    if (this.result.length === 0 || isFull) {
      this.result.push({ id: randomUUID(), timestamp: this.#timestamp, writes: [], voids: this.#voids })
      this.#bytes = 0
      this.#rows = 0
    }
    this.#bytes += bytes
    this.#rows++
    const { writes } = this.result.at(-1)!
    const last = writes.at(-1)
    if (change.operation === 'delete') {
      if (last?.operation === 'delete') last.ids.push(key)
      else writes.push({ operation: 'delete', database, table, ids: [key] })
      return
    }
    const operation: Write['operation'] = change.operation === 'put' ? 'upsert' : 'update'
    if (last?.operation === operation) last.records.push(change.record)
    else writes.push({ operation, database, table, records: [change.record] })
  }
}

/** An estimate, high for binary values. */
const sizeOf = (record: object): number =>
  JSON.stringify(record, (_, value) => (typeof value === 'bigint' ? `${value}n` : value)).length
