// The host of the README: a complete database on LMDB with rows, checkpoints and an outbox. Tests compile it and run the contract of hosts on it.

import { randomUUID } from 'node:crypto'
import { open } from 'lmdb'
import {
  type Batch,
  type Checkpoint,
  type ClusterManager,
  type Host,
  mergeRow,
  type PublishConfirmation,
  type PublishedPosition,
  type RemoteTable,
  rowChanges,
  type StoredRow,
  type TableDescription,
  type Transaction,
  type Write,
} from '../../lib/index.ts'

export class LmdbHost implements Host {
  /** Set after `ClusterManager.open`: local commits take their timestamps from it. */
  cluster: Pick<ClusterManager, 'timestamp' | 'publish'> | undefined
  readonly #root
  readonly #tables // [database, table]: TableDescription
  readonly #rows // [database, table, key]: StoredRow, tombstones included
  readonly #outbox // 1, 2, 3...: Transaction
  readonly #state // ['checkpoint' or 'published', ...]: unchanged; 'timestamp': the highest
  readonly #positions = new Map<string, number>() // in the outbox, by id of a transaction that was read

  constructor(path: string) {
    this.#root = open({ path })
    this.#tables = this.#root.openDB<TableDescription, string[]>('tables', {})
    this.#rows = this.#root.openDB<StoredRow, (string | number)[]>('rows', {})
    this.#outbox = this.#root.openDB<Transaction, number>('outbox', {})
    this.#state = this.#root.openDB<unknown, string | string[]>('state', {})
  }

  get(database: string, table: string, key: unknown) {
    return this.#rows.get([database, table, key as string | number])?.record
  }

  /** A local commit: rows and outbox entry in one transaction, then `publish`. */
  async commit(writes: Write[], timestamp = () => this.cluster!.timestamp()): Promise<Transaction> {
    const transaction = await this.#root.childTransaction(() => {
      const transaction = { id: randomUUID(), timestamp: timestamp(), writes } // inside the transaction: timestamps follow commit order
      this.#write(transaction)
      this.#append(transaction)
      return transaction
    })
    this.cluster?.publish(transaction).catch(() => {}) // it stays in the outbox until it is confirmed
    return transaction
  }

  #write({ timestamp, writes, voids }: Transaction): void {
    for (const write of writes) {
      const { database, table } = write
      const description = this.#tables.get([database, table])
      if (!description) throw new Error(`Table '${database}.${table}' does not exist`)
      for (const { key, change } of rowChanges(write, timestamp, description.primaryKey)) {
        const at = [database, table, key as string | number]
        this.#rows.put(at, mergeRow(this.#rows.get(at), change, { voids })) // the last writer wins
      }
    }
    if (timestamp > ((this.#state.get('timestamp') as string) ?? '')) this.#state.put('timestamp', timestamp)
  }

  #append(transaction: Transaction): void {
    const [last = 0] = this.#outbox.getKeys({ reverse: true, limit: 1 })
    this.#outbox.put(last + 1, transaction)
  }

  // --- Host ---------------------------------------------------------------------------------------------------------------

  info = () => ({ version: '1.0.0' })

  async lastTimestamp() {
    return this.#state.get('timestamp') as string | undefined
  }

  async describe() {
    return [...this.#tables.getRange()].map(({ value }) => value)
  }

  async createTable(table: TableDescription) {
    const key = [table.database, table.table]
    if (!this.#tables.doesExist(key)) await this.#tables.put(key, table)
  }

  /** Rows, checkpoint and relayed transactions in one transaction; an error rolls back all of it. */
  async apply({ source, transactions, checkpoint, relay = [] }: Batch) {
    await this.#root.childTransaction(() => {
      for (const transaction of transactions) this.#write(transaction)
      this.#state.put(checkpointKey(source), checkpoint)
      for (const transaction of relay) this.#append(transaction)
    })
  }

  async loadCheckpoint(source: RemoteTable) {
    return this.#state.get(checkpointKey(source)) as Checkpoint | undefined
  }

  async deleteCheckpoint(source: RemoteTable) {
    await this.#state.remove(checkpointKey(source))
  }

  async *readOutbox(after?: { id: string }) {
    const start = ((after && this.#positions.get(after.id)) ?? 0) + 1
    for (const position of [...this.#outbox.getKeys({ start })]) {
      const transaction = this.#outbox.get(position)
      if (!transaction) continue // removed in the meantime
      this.#positions.set(transaction.id, position)
      yield transaction
    }
  }

  async confirmPublished({ positions, upTo, keep = [] }: PublishConfirmation) {
    await this.#root.childTransaction(() => {
      for (const each of positions) this.#state.put(['published', each.database, each.table], each)
      const end = ((upTo && this.#positions.get(upTo.id)) ?? 0) + 1
      for (const { key, value } of this.#outbox.getRange({ start: 0, end }))
        if (!keep.includes(value.id) && this.#positions.delete(value.id)) this.#outbox.remove(key)
    })
  }

  async publishedPosition(database: string, table: string) {
    return this.#state.get(['published', database, table]) as PublishedPosition | undefined
  }

  close() {
    return this.#root.close()
  }
}

const checkpointKey = ({ node, database, table }: RemoteTable) => ['checkpoint', node, database, table]
