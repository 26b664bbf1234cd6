// The database of one case of the host contract, and short forms of the calls that the cases make.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { writesOfRow } from '../../host/copied-row.ts'
import type {
  Batch,
  Host,
  KeyedRow,
  PrimaryKey,
  RecordWrite,
  RemoteTable,
  RemoteTransaction,
  StoredRow,
  Timestamp,
  Transaction,
  Write,
} from '../../host/host.ts'
import { makeTimestamp } from '../../host/hybrid-clock.ts'

/** A new, empty, open database for one case. */
export type HostUnderTest = {
  host: Host
  /** The record as users of the database read it; undefined when it does not exist. */
  read(
    database: string,
    table: string,
    key: PrimaryKey,
  ): Record<string, unknown> | undefined | Promise<Record<string, unknown> | undefined>
  /** Commits these writes locally as one transaction with this timestamp: data and outbox entry together. Required for a host with an outbox. */
  commit?(writes: Write[], timestamp: Timestamp): unknown
  /** Closes the database, or kills its process, and opens it again. Resolves with the new host. Missing: the cases with a restart are skipped. */
  reopen?(): Host | Promise<Host>
  /** Drops a table, as a user of the database does. Missing: the cases of dropped tables are skipped. */
  dropTable?(database: string, table: string): void | Promise<void>
  /** Drops tombstones with lower timestamps, as the database does to save space. Missing: the cases of dropped tombstones are skipped. */
  dropTombstones?(database: string, table: string, limit: Timestamp): unknown
  /**
   * Stores a record as a database holds it that had no cluster: without a timestamp, not in the outbox. Missing: the cases of such rows
   * are skipped.
   */
  storeExisting?(database: string, table: string, record: Record<string, unknown>): unknown
  /** Commits these writes locally as while clustering is disabled, without an entry in the outbox. Missing: that case is skipped. */
  commitUnrecorded?(writes: Write[], timestamp: Timestamp): unknown
  /** Called after the case, also after a failure. */
  close?(): void | Promise<void>
}

export type HostCase = (scene: HostScene) => Promise<void>

export const dog = { database: 'dev', table: 'dog' }
export const cat = { database: 'dev', table: 'cat' }
export const remoteTable = (node: string, table = dog): RemoteTable => ({ node, ...table })
/** A timestamp `time` ms after a fixed start. */
export const at = (time: number, node = 'node2'): Timestamp => makeTimestamp(1_700_000_000_000 + time, 0, node)

export const insert = (record: object, table = dog): RecordWrite => ({
  operation: 'insert',
  ...table,
  records: [record as Record<string, unknown>],
})
export const update = (record: object): Write => ({ ...insert(record), operation: 'update' })
export const upsert = (record: object): Write => ({ ...insert(record), operation: 'upsert' })
export const remove = (id: PrimaryKey): Write => ({ operation: 'delete', ...dog, ids: [id] })

/** Timestamps of a row. Whether an update sets one for the primary key, which it does not change, is up to the host. */
export const timestampsOf = ({ timestamp, updated }: StoredRow) => {
  const { id: _, ...others } = updated ?? {}
  return { timestamp, updated: others }
}

/** More than any case has: `readRows` may not begin again. */
const MAX_PAGES = 1_000

export class HostScene {
  readonly subject: HostUnderTest
  host: Host
  #sequence = 0
  readonly #names = new Map<string, string>()
  readonly #create: () => HostUnderTest | Promise<HostUnderTest>
  readonly #others: HostScene[] = []

  constructor(subject: HostUnderTest, create: () => HostUnderTest | Promise<HostUnderTest>) {
    this.subject = subject
    this.host = subject.host
    this.#create = create
  }

  /** Another new database, for rows that are copied. */
  async another(): Promise<HostScene> {
    const scene = new HostScene(await this.#create(), this.#create)
    this.#others.push(scene)
    return scene
  }

  /** Closes all databases of the case, also after one that does not close. */
  async close(): Promise<void> {
    try {
      for (const each of this.#others) await each.close()
    } finally {
      await this.subject.close?.()
    }
  }

  async tables(...tables: { database: string; table: string }[]): Promise<void> {
    for (const table of tables) await this.host.createTable({ ...table, primaryKey: 'id', attributes: ['id', 'name'] })
  }

  transaction(timestamp: Timestamp, ...writes: Write[]): RemoteTransaction {
    const sequence = ++this.#sequence
    return {
      id: `tx-${sequence}-${randomUUID()}`,
      timestamp,
      writes,
      sequence,
      index: sequence,
      origin: { node: 'node2', epoch: 'e', index: sequence, relayedBy: [] },
    }
  }

  batch(transactions: RemoteTransaction[], more: Partial<Batch> = {}): Batch {
    return { source: remoteTable('node2'), transactions, checkpoint: { epoch: 'e', sequence: this.#sequence }, ...more }
  }

  /** Applies a batch of one transaction. */
  async apply(timestamp: Timestamp, ...writes: Write[]): Promise<void> {
    await this.host.apply(this.batch([this.transaction(timestamp, ...writes)]))
  }

  async has(expected: object | undefined, key: PrimaryKey = 1, table = dog): Promise<void> {
    const record = await this.subject.read(table.database, table.table, key)
    // The database may add attributes to a record.
    if (expected === undefined || record === undefined) return assert.equal(record, expected, `record ${String(key)}`)
    for (const [name, value] of Object.entries(expected)) assert.deepEqual(record[name], value, `attribute ${name}`)
  }

  async lacks(attribute: string, key: PrimaryKey = 1): Promise<void> {
    const record = await this.subject.read(dog.database, dog.table, key)
    assert.ok(record?.[attribute] === undefined || record[attribute] === null, `attribute ${attribute} is removed`)
  }

  /** All rows of a table, read in pages of at most `limit`. */
  async rows(table = dog, limit = 7, after?: PrimaryKey): Promise<KeyedRow[]> {
    const found: KeyedRow[] = []
    for (let pages = 0; pages < MAX_PAGES; pages++) {
      const page = await this.host.readRows!(table, { after, limit })
      assert.ok(page.length <= limit, `a page of at most ${limit} rows has ${page.length}`)
      if (page.length === 0) return found
      found.push(...page)
      after = page.at(-1)!.key
    }
    return assert.fail(`the rows do not end after ${MAX_PAGES} pages`)
  }

  async row(key: PrimaryKey, table = dog): Promise<StoredRow | undefined> {
    return (await this.host.readRows!(table, { keys: [key] }))[0]?.row
  }

  /** The batch that copies these rows of another database to this one, at their own timestamps. */
  copy(rows: readonly KeyedRow[], more: Partial<Batch> = {}): Batch {
    const description = { ...dog, primaryKey: 'id' }
    const writes = rows.flatMap((row) => writesOfRow(description, row))
    const transactions = writes.map(({ timestamp, write }) => this.transaction(timestamp, write))
    return this.batch(transactions, { isCopy: true, acceptOld: true, ...more })
  }

  async outbox(after?: { id: string; timestamp: Timestamp }): Promise<Transaction[]> {
    const found: Transaction[] = []
    for await (const each of this.host.readOutbox!(after)) found.push(each)
    return found
  }

  /** Commits locally. Resolves with the entry in the outbox, which `named` then shows as `name`. */
  async commit(name: string, ...writes: Write[]): Promise<Transaction> {
    const { commit } = this.subject
    assert.ok(commit, "testing a host with an outbox requires 'commit'")
    const timestamp = at(++this.#sequence, 'node1')
    await commit.call(this.subject, writes, timestamp)
    const transaction = (await this.outbox()).at(-1)
    assert.ok(transaction, 'the committed transaction is in the outbox')
    assert.equal(transaction.timestamp, timestamp, 'it has the timestamp of its commit')
    this.#names.set(transaction.id, name)
    return transaction
  }

  named(transactions: readonly Transaction[]): string[] {
    return transactions.map(({ id }) => this.#names.get(id) ?? id)
  }

  async reopen(): Promise<void> {
    this.host = await this.subject.reopen!()
  }
}
