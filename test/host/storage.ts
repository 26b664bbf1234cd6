// The LMDB environment: all that a node keeps lies in it, so that one LMDB transaction can hold data, outbox and checkpoint.

import { mkdir } from 'node:fs/promises'
import { type DatabaseOptions, open, type Database as Store } from 'lmdb'
import type { Transaction } from '../../lib/host/host.ts'
import type { StoredRow } from '../../lib/host/merge-row.ts'
import { HostError } from './errors.ts'

/**
 * What makes values come back as they went in: typed arrays and sets (`moreTypes`), integers beyond 64 bits, objects as they
 * are. Not `structuredClone`, which writes an object that occurs twice in a record in a form that does not read back.
 */
const values: DatabaseOptions & { encoder: object } = {
  encoder: { moreTypes: true, useRecords: false, useBigIntExtension: true },
}

export type StoredTable = {
  primaryKey: string
  /** Grows by itself with what records hold. */
  attributes: string[]
  /** Visible records, tombstones not counted. */
  count: number
}

export class Storage {
  /** `keys.rowKey` to row; tombstones included. */
  readonly rows: Store<StoredRow, Buffer>
  /** [database] and [database, table]. */
  readonly schema: Store<StoredTable | null, string[]>
  /** Position, counting up for ever, to transaction. */
  readonly outbox: Store<Transaction, number>
  /** [transaction id, position]: to find a position. */
  readonly outboxIds: Store<true, [string, number]>
  /** Everything else: the highest stamp, checkpoints, publish progress, the outbox's last position. */
  readonly state: Store<unknown, string | string[]>
  readonly #root: ReturnType<typeof open>
  #closed: Promise<void> | undefined

  private constructor(directory: string) {
    this.#root = open({ path: directory })
    this.rows = this.#root.openDB('rows', { ...values, keyEncoding: 'binary' })
    this.schema = this.#root.openDB('schema', {})
    this.outbox = this.#root.openDB('outbox', values)
    this.outboxIds = this.#root.openDB('outbox-ids', {})
    this.state = this.#root.openDB('state', {})
  }

  static async open(directory: string): Promise<Storage> {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return new Storage(directory)
  }

  /**
   * Run `work`, synchronous, in a write transaction; resolves when it is on disk. If `work` throws, nothing of it stays.
   * Transactions run, and resolve, in the order of the calls; LMDB puts many of them into one commit.
   */
  async transaction<T>(work: () => T): Promise<T> {
    if (this.#closed) throw new HostError(503, 'The database is closed')
    // A child transaction: a plain one shares its fate with its neighbours and would keep what was written before the throw.
    return this.#root.childTransaction(() => {
      const result = work()
      if (result instanceof Promise) throw new TypeError('The work of a transaction must be synchronous')
      return result
    })
  }

  /** Waits for the transactions under way. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#root.close()
    return this.#closed
  }
}
