// The LMDB environment with all data of a node, so that one LMDB transaction covers rows, outbox and checkpoint.

import { mkdir } from 'node:fs/promises'
import { type DatabaseOptions, open, type Database as Store } from 'lmdb'
import type { Transaction } from '../../lib/host/host.ts'
import type { StoredRow } from '../../lib/host/merge-row.ts'
import type { StoredConflict } from './conflicts.ts'
import { HostError } from './errors.ts'

/**
 * Encoding that preserves all values: typed arrays and sets (`moreTypes`), integers beyond 64 bits. Not the option `structuredClone`:
 * it encodes an object that occurs twice in a record in a form that cannot be decoded.
 */
const valueOptions: DatabaseOptions & { encoder: object } = {
  encoder: { moreTypes: true, useRecords: false, useBigIntExtension: true },
}

export type StoredTable = {
  primaryKey: string
  /** Records add their attributes automatically. */
  attributes: string[]
  /** Number of records, without tombstones. */
  count: number
}

export class Storage {
  /** Key from `rowKey`; tombstones included. */
  readonly rows: Store<StoredRow, Buffer>
  /** Keys: [database] and [database, table]. */
  readonly schema: Store<StoredTable | null, string[]>
  /** Key: a position that only increases. */
  readonly outbox: Store<Transaction, number>
  /** Key: a position that only increases. */
  readonly conflicts: Store<StoredConflict, number>
  /** Highest timestamp, checkpoints and published positions. */
  readonly state: Store<unknown, string | string[]>
  readonly #root: ReturnType<typeof open>
  #closed: Promise<void> | undefined
  readonly #rollbackListeners: (() => void)[] = []

  private constructor(directory: string) {
    this.#root = open({ path: directory })
    this.rows = this.#root.openDB('rows', { ...valueOptions, keyEncoding: 'binary' })
    this.schema = this.#root.openDB('schema', {})
    this.outbox = this.#root.openDB('outbox', valueOptions)
    this.conflicts = this.#root.openDB('conflicts', valueOptions)
    this.state = this.#root.openDB('state', {})
  }

  static async open(directory: string): Promise<Storage> {
    await mkdir(directory, { recursive: true, mode: 0o700 })
    return new Storage(directory)
  }

  /**
   * Runs the synchronous function `work` in a write transaction. Resolves when LMDB has committed it, and syncs the
   * file meanwhile: it survives the end of the process, but perhaps not a power failure. Rolled back if `work` throws.
   * Transactions run and resolve in the order of the calls. LMDB groups many of them into one commit.
   */
  async transaction<T>(work: () => T): Promise<T> {
    if (this.#closed) throw new HostError(503, 'The database is closed')
    try {
      // A child transaction: a plain one is grouped with others and would keep the writes before an exception.
      return await this.#root.childTransaction(() => this.#run(work))
    } catch (error) {
      this.#rolledBack()
      throw error
    }
  }

  #run<T>(work: () => T): T {
    try {
      const result = work()
      if (result instanceof Promise) throw new TypeError('The callback of a transaction must be synchronous')
      return result
    } catch (error) {
      // Before the next transaction of the same commit runs.
      this.#rolledBack()
      throw error
    }
  }

  /** `listener` is called when a transaction has failed: what was read in it may not be in the database. */
  onRollback(listener: () => void): void {
    this.#rollbackListeners.push(listener)
  }

  #rolledBack(): void {
    for (const listener of this.#rollbackListeners) listener()
  }

  /** Waits for pending transactions. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#root.close()
    return this.#closed
  }
}
