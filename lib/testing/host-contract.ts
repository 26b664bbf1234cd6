// What every Host must hold to, as cases that any test runner can run, or none.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import type {
  Batch,
  Checkpoint,
  Host,
  PrimaryKey,
  PublishedPosition,
  RecordWrite,
  RemoteTable,
  RemoteTransaction,
  Timestamp,
  Transaction,
  Write,
} from '../host/host.ts'
import { makeTimestamp } from '../host/hybrid-clock.ts'

/** A database of its own for one case, open and empty. */
export type HostUnderTest = {
  host: Host
  /** The record as users of the database read it; undefined when there is none. */
  read(
    database: string,
    table: string,
    key: PrimaryKey,
  ): Record<string, unknown> | undefined | Promise<Record<string, unknown> | undefined>
  /** Commits these writes locally, as a transaction of its own with this stamp, data and outbox entry in one. Needed when the host has an outbox. */
  commit?(writes: Write[], timestamp: Timestamp): unknown
  /** The database is closed, or its process killed, and opened again: the host that it has then. Missing: those cases are left out. */
  reopen?(): Host | Promise<Host>
  /** After the case, whatever came of it. */
  close?(): void | Promise<void>
}

/** `run` rejects with an AssertionError when the host does otherwise, and as the host does when that fails. */
export type ContractCase = { name: string; run(): Promise<void> }

type Case = (scene: ContractScene) => Promise<void>

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }
const from = (node: string, table = dog): RemoteTable => ({ node, ...table })
const at = (time: number, node = 'node2'): Timestamp => makeTimestamp(1_700_000_000_000 + time, 0, node)

const insert = (record: object, table = dog): RecordWrite => ({
  operation: 'insert',
  ...table,
  records: [record as Record<string, unknown>],
})
const update = (record: object): Write => ({ ...insert(record), operation: 'update' })
const upsert = (record: object): Write => ({ ...insert(record), operation: 'upsert' })
const remove = (id: PrimaryKey): Write => ({ operation: 'delete', ...dog, ids: [id] })

/** One database, and the batches that it is handed. */
class ContractScene {
  readonly subject: HostUnderTest
  host: Host
  #sequence = 0
  readonly #names = new Map<string, string>()

  constructor(subject: HostUnderTest) {
    this.subject = subject
    this.host = subject.host
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
      origin: { node: 'node2', epoch: 'e', sequence, relayedBy: [] },
    }
  }

  batch(transactions: RemoteTransaction[], more: Partial<Batch> = {}): Batch {
    return { source: from('node2'), transactions, checkpoint: { epoch: 'e', sequence: this.#sequence }, ...more }
  }

  /** One transaction, applied as a batch of its own. */
  apply(timestamp: Timestamp, ...writes: Write[]): Promise<void> {
    return this.host.apply(this.batch([this.transaction(timestamp, ...writes)]))
  }

  async has(expected: object | undefined, key: PrimaryKey = 1, table = dog): Promise<void> {
    const record = await this.subject.read(table.database, table.table, key)
    // What a database adds of its own to a record is its business.
    if (expected === undefined || record === undefined) return assert.equal(record, expected, `record ${String(key)}`)
    for (const [name, value] of Object.entries(expected)) assert.deepEqual(record[name], value, `attribute ${name}`)
  }

  async lacks(attribute: string, key: PrimaryKey = 1): Promise<void> {
    const record = await this.subject.read(dog.database, dog.table, key)
    assert.ok(record?.[attribute] === undefined || record[attribute] === null, `attribute ${attribute} is gone`)
  }

  async outbox(after?: { id: string; timestamp: Timestamp }): Promise<Transaction[]> {
    const found: Transaction[] = []
    for await (const each of this.host.readOutbox!(after)) found.push(each)
    return found
  }

  /** Resolves with what lies in the outbox for it, which `named` calls by this name. */
  async commit(name: string, ...writes: Write[]): Promise<Transaction> {
    const { commit } = this.subject
    assert.ok(commit, "a host with an outbox is tested with 'commit'")
    const timestamp = at(++this.#sequence, 'node1')
    await commit.call(this.subject, writes, timestamp)
    const transaction = (await this.outbox()).at(-1)
    assert.ok(transaction, 'what was committed is in the outbox')
    assert.equal(transaction.timestamp, timestamp, 'it has the stamp that it was committed with')
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

const checkpoint: Checkpoint = {
  epoch: 'e1',
  sequence: 7,
  lastMessageId: 'tx-7',
  applied: {
    node3: {
      'epoch of node3': [
        [1, 5],
        [9, 9],
      ],
    },
  },
  startTime: '2026-01-02T03:04:05.000Z',
  replayUntil: 9,
  quarantined: { e1: [[3, 3]] },
  gaps: { count: 2, lost: 40 },
}

const cases: Record<string, Case> = {
  'info tells a version': async ({ host }) => {
    assert.equal(typeof host.info().version, 'string')
  },
  'createTable makes a table and its database, and does nothing when it is there': async (scene) => {
    await scene.tables(dog, cat)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    await scene.tables(dog)
    await scene.has({ id: 1, name: 'Rex' })
    const described = (await scene.host.describe()).filter(({ database }) => database === 'dev')
    assert.deepEqual(described.map(({ table, primaryKey }) => [table, primaryKey]).sort(), [
      ['cat', 'id'],
      ['dog', 'id'],
    ])
    for (const { attributes } of described) assert.ok(Array.isArray(attributes), 'attributes are a list of names')
  },
  'apply inserts, updates, upserts and deletes': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }), insert({ id: 2, name: 'Ida' }))
    await scene.has({ id: 1, name: 'Rex', age: 3 })
    await scene.apply(at(2), update({ id: 1, age: 4 }))
    await scene.has({ id: 1, name: 'Rex', age: 4 })
    await scene.apply(at(3), upsert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
    await scene.lacks('age')
    await scene.apply(at(4), remove(1))
    await scene.has(undefined)
    await scene.has({ id: 2, name: 'Ida' }, 2)
  },
  'an update of a record that is not there makes it': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), update({ id: 1, name: 'Rex' }))
    await scene.has({ id: 1, name: 'Rex' })
  },
  'the writes of a transaction are done in their order': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }), remove(1), insert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
  },
  'keys that are numbers and keys that are text are different': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'number' }), insert({ id: '1', name: 'text' }))
    await scene.has({ name: 'number' }, 1)
    await scene.has({ name: 'text' }, '1')
  },
  'values come back as they were': async (scene) => {
    await scene.tables(dog)
    const record = {
      id: 1,
      text: 'ä 𝄞 \u0000 "',
      none: null,
      no: false,
      real: 0.1,
      big: 2 ** 53 - 1,
      list: [1, [2, {}]],
      deep: { a: { b: [] } },
    }
    await scene.apply(at(1), insert(record))
    await scene.has(record)
  },
  'so do times, bytes and integers beyond 2^53': async (scene) => {
    await scene.tables(dog)
    const bytes = Uint8Array.of(0, 255, 128)
    const record = { id: 1, at: new Date(1_700_000_000_123), big: 2n ** 60n, bytes }
    await scene.apply(at(1), insert(record))
    if (scene.subject.reopen) await scene.reopen()
    await scene.has({ at: record.at, big: record.big })
    const stored = (await scene.subject.read('dev', 'dog', 1))?.bytes
    assert.ok(stored instanceof Uint8Array, 'bytes are bytes')
    assert.deepEqual([...stored], [...bytes])
  },
  'an older insert or upsert does not undo a newer one': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), upsert({ id: 1, name: 'new' }))
    await scene.apply(at(1), upsert({ id: 1, name: 'old' }))
    await scene.apply(at(1), insert({ id: 1, name: 'old' }))
    await scene.has({ id: 1, name: 'new' })
  },
  'equal times are decided by the node’s name, in whatever order they arrive': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1, 'node3'), upsert({ id: 1, name: 'node3' }))
    await scene.apply(at(1, 'node2'), upsert({ id: 1, name: 'node2' }))
    await scene.apply(at(1, 'node2'), upsert({ id: 2, name: 'node2' }))
    await scene.apply(at(1, 'node3'), upsert({ id: 2, name: 'node3' }))
    await scene.has({ name: 'node3' }, 1)
    await scene.has({ name: 'node3' }, 2)
  },
  'a delete wins over what is older and arrives later, of a record that was never there too': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(5), remove(1))
    await scene.apply(at(4), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(3), update({ id: 1, name: 'Rex' }))
    await scene.has(undefined)
    await scene.apply(at(6), insert({ id: 1, name: 'Max' }))
    await scene.has({ id: 1, name: 'Max' })
  },
  'an older delete does not undo a newer write': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), insert({ id: 1, name: 'Rex' }))
    await scene.apply(at(1), remove(1))
    await scene.has({ id: 1, name: 'Rex' })
  },
  'updates of different attributes both survive, whichever comes first': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.apply(at(3), update({ id: 1, age: 4 }))
    await scene.apply(at(2), update({ id: 1, name: 'Max', age: 9 }))
    await scene.has({ id: 1, name: 'Max', age: 4 })
  },
  'an older insert that comes late fills in what newer updates have not set': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(2), update({ id: 1, age: 4 }))
    await scene.apply(at(1), insert({ id: 1, name: 'Rex', age: 3 }))
    await scene.has({ id: 1, name: 'Rex', age: 4 })
  },
  'every order of arrival gives the same record': async (scene) => {
    await scene.tables(dog)
    const writes: [number, Write][] = [
      [1, insert({ id: 0, a: 1, b: 1, c: 1 })],
      [2, update({ id: 0, a: 2, b: 2 })],
      [3, remove(0)],
      [4, update({ id: 0, c: 4 })],
      [5, upsert({ id: 0, b: 5 })],
      [6, update({ id: 0, a: 6 })],
    ]
    const orders = permutations(writes.map((_, index) => index)).filter((_, index) => index % 24 === 0)
    for (const [number, order] of orders.entries()) {
      const key = 100 + number
      for (const index of order) {
        const [time, write] = writes[index]!
        const mine: Write =
          write.operation === 'delete'
            ? { ...write, ids: [key] }
            : { ...write, records: write.records.map((each) => ({ ...each, id: key })) }
        await scene.apply(at(time), mine)
      }
      await scene.has({ id: key, a: 6, b: 5 }, key)
      await scene.lacks('c', key)
    }
  },
  'a batch that comes again changes nothing': async (scene) => {
    await scene.tables(dog)
    const batch = scene.batch([
      scene.transaction(at(1), insert({ id: 1, name: 'Rex' })),
      scene.transaction(at(2), update({ id: 1, age: 3 })),
    ])
    await scene.host.apply(batch)
    await scene.host.apply(batch)
    await scene.has({ id: 1, name: 'Rex', age: 3 })
  },
  'a checkpoint comes back as it was stored, of each source its own': async (scene) => {
    await scene.tables(dog, cat)
    assert.equal(await scene.host.loadCheckpoint(from('node2')), undefined)
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.host.apply(scene.batch([], { source: from('node3'), checkpoint: { epoch: 'x', sequence: 1 } }))
    await scene.host.apply(scene.batch([], { source: from('node2', cat), checkpoint: { epoch: 'y', sequence: 2 } }))
    assert.deepEqual(await scene.host.loadCheckpoint(from('node2')), checkpoint)
    assert.deepEqual(await scene.host.loadCheckpoint(from('node3')), { epoch: 'x', sequence: 1 })
    assert.deepEqual(await scene.host.loadCheckpoint(from('node2', cat)), { epoch: 'y', sequence: 2 })
    await scene.host.apply(scene.batch([], { checkpoint: { epoch: 'e1', sequence: 8 } }))
    assert.deepEqual(await scene.host.loadCheckpoint(from('node2')), { epoch: 'e1', sequence: 8 })
  },
  'forget drops that checkpoint, and no other; a second time too': async (scene) => {
    await scene.tables(dog)
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.host.apply(scene.batch([], { source: from('node3'), checkpoint }))
    await scene.host.deleteCheckpoint(from('node2'))
    await scene.host.deleteCheckpoint(from('node2'))
    assert.equal(await scene.host.loadCheckpoint(from('node2')), undefined)
    assert.deepEqual(await scene.host.loadCheckpoint(from('node3')), checkpoint)
  },
  'a batch that is refused leaves nothing: no rows, no checkpoint, nothing in the outbox': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    const before = await scene.host.loadCheckpoint(from('node2'))
    const missing = { database: 'dev', table: 'table_that_is_not_there' }
    const transactions = [
      scene.transaction(at(2), update({ id: 1, name: 'Max' }), insert({ id: 2, name: 'Ida' })),
      scene.transaction(at(3), insert({ id: 3 }, missing)),
    ]
    const relay = scene.host.readOutbox ? { relay: [transactions[0]!] } : {}
    await assert.rejects(
      async () => scene.host.apply(scene.batch(transactions, relay)),
      (error) => error !== undefined,
      'a write to a table that does not exist is refused',
    )
    await scene.has({ id: 1, name: 'Rex' })
    await scene.has(undefined, 2)
    assert.deepEqual(await scene.host.loadCheckpoint(from('node2')), before)
    if (scene.host.readOutbox) assert.deepEqual(await scene.outbox(), [])
  },
}

const durableCases: Record<string, Case> = {
  'what was applied is there after a restart: rows, tombstones, stamps, checkpoint, tables': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(5), insert({ id: 1, name: 'Rex' }), remove(2))
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.reopen()
    await scene.has({ id: 1, name: 'Rex' })
    assert.deepEqual(await scene.host.loadCheckpoint(from('node2')), checkpoint)
    assert.ok((await scene.host.describe()).some(({ database, table }) => database === 'dev' && table === 'dog'))
    await scene.apply(at(4), upsert({ id: 1, name: 'old' }), insert({ id: 2 }))
    await scene.has({ id: 1, name: 'Rex' })
    await scene.has(undefined, 2)
  },
  'lastTimestamp returns the highest timestamp of applied and of local transactions': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(50), insert({ id: 1 }))
    await scene.apply(at(40), insert({ id: 2 }))
    await scene.reopen()
    const last = await scene.host.lastTimestamp()
    assert.ok((last ?? '') >= at(50), `${last} is below ${at(50)}`)
  },
}

const outboxCases: Record<string, Case> = {
  'what is committed here is in the outbox as it is, in the order of the commits': async (scene) => {
    await scene.tables(dog, cat)
    assert.deepEqual(await scene.outbox(), [])
    const writes: Write[][] = [
      [insert({ id: 1, name: 'Rex' }), insert({ id: 1 }, cat)],
      [update({ id: 1, name: 'Max' })],
      [remove(1)],
    ]
    for (const [index, each] of writes.entries()) await scene.commit(String(index), ...each)
    const found = await scene.outbox()
    assert.deepEqual(scene.named(found), ['0', '1', '2'])
    assert.deepEqual(
      found.map((each) => each.writes),
      writes,
    )
    assert.equal(new Set(found.map(({ id }) => id)).size, 3, 'each has an id of its own')
    await scene.has(undefined)
  },
  'readOutbox reads on behind a transaction': async (scene) => {
    await scene.tables(dog)
    const transactions = []
    for (const id of ['one', 'two', 'three']) transactions.push(await scene.commit(id, insert({ id })))
    // A host may ignore it, and then begins anew.
    const found = scene.named(await scene.outbox(transactions[0]))
    assert.ok(['two,three', 'one,two,three'].includes(found.join()), `behind 'one' comes ${found}`)
  },
  'reading the outbox and committing do not wait for each other': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1 }))
    const reading = scene.host.readOutbox!()[Symbol.asyncIterator]()
    assert.deepEqual(scene.named([(await reading.next()).value!]), ['one'])
    await scene.commit('two', insert({ id: 2 }))
    await reading.return?.()
    assert.deepEqual(scene.named(await scene.outbox()), ['one', 'two'])
  },
  'published empties it up to a transaction and keeps how far each table is': async (scene) => {
    await scene.tables(dog, cat)
    for (const id of ['one', 'two', 'three', 'four']) await scene.commit(id, insert({ id }))
    const [one, two, three] = await scene.outbox()
    const position = (table: typeof dog, sequence: number, id: string): PublishedPosition => ({
      ...table,
      epoch: 'e',
      sequence,
      id,
    })
    assert.equal(await scene.host.publishedPosition!('dev', 'dog'), undefined)
    await scene.host.confirmPublished!({ positions: [position(dog, 1, 'one'), position(cat, 9, 'x')], upTo: one })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'three', 'four'])
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'dog'), position(dog, 1, 'one'))
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'cat'), position(cat, 9, 'x'))
    await scene.host.confirmPublished!({ positions: [position(dog, 5, 'five')] })
    assert.deepEqual(
      scene.named(await scene.outbox()),
      ['two', 'three', 'four'],
      'without a transaction nothing leaves',
    )
    await scene.host.confirmPublished!({ positions: [position(dog, 3, 'three')], upTo: three, keep: [two!.id] })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'four'], 'what is excepted stays')
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'dog'), position(dog, 3, 'three'))
    await scene.host.confirmPublished!({ positions: [position(dog, 3, 'three')], upTo: one })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'four'], 'one that has left empties nothing')
  },
  'what is to be handed on is put behind what is there, with its origin': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1 }))
    const { sequence, ...transaction } = scene.transaction(at(1), insert({ id: 2 }))
    const relay: Transaction[] = [
      { ...transaction, id: 'handed on', origin: { node: 'node2', epoch: 'e', sequence, relayedBy: ['node2'] } },
    ]
    await scene.host.apply(scene.batch([{ ...transaction, sequence }], { relay }))
    const found = await scene.outbox()
    assert.deepEqual(scene.named(found), ['one', 'handed on'])
    assert.deepEqual(found[1]!.origin, relay[0]!.origin)
    assert.equal(found[1]!.timestamp, transaction.timestamp)
  },
  'a commit here and one from elsewhere are decided by their stamps': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1, name: 'here' }))
    await scene.apply(at(0), upsert({ id: 1, name: 'older' }))
    await scene.has({ id: 1, name: 'here' })
    await scene.apply(at(1_000), upsert({ id: 1, name: 'newer' }))
    await scene.has({ id: 1, name: 'newer' })
    assert.deepEqual(scene.named(await scene.outbox()), ['one'], 'what was applied is not sent back')
  },
}

const durableOutboxCases: Record<string, Case> = {
  'the outbox and how far each table is outlive a restart': async (scene) => {
    await scene.tables(dog)
    const one = await scene.commit('one', insert({ id: 1 }))
    await scene.commit('two', insert({ id: 2 }))
    const progress: PublishedPosition = { ...dog, epoch: 'e', sequence: 1, id: 'one' }
    await scene.host.confirmPublished!({ positions: [progress], upTo: one })
    await scene.reopen()
    assert.deepEqual(scene.named(await scene.outbox()), ['two'])
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'dog'), progress)
    await scene.commit('three', insert({ id: 3 }))
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'three'])
  },
}

const permutations = <T>(items: readonly T[]): T[][] =>
  items.length < 2
    ? [[...items]]
    : items.flatMap((item, index) => permutations(items.toSpliced(index, 1)).map((rest) => [item, ...rest]))

/**
 * One case each, every one on a database that `create` makes: `for (const { name, run } of hostContract(create)) test(name, run)`.
 * Cases of an outbox pass by a host without one, those of a restart one without `reopen`.
 */
export function hostContract(create: () => HostUnderTest | Promise<HostUnderTest>): ContractCase[] {
  const group = (group: Record<string, Case>, applies: (subject: HostUnderTest) => boolean): ContractCase[] =>
    Object.entries(group).map(([name, work]) => ({
      name,
      run: async () => {
        const subject = await create()
        try {
          if (applies(subject)) await work(new ContractScene(subject))
        } finally {
          await subject.close?.()
        }
      },
    }))
  const hasOutbox = ({ host }: HostUnderTest) => host.readOutbox !== undefined
  const isDurable = ({ reopen }: HostUnderTest) => reopen !== undefined
  return [
    ...group(cases, () => true),
    ...group(durableCases, isDurable),
    ...group(outboxCases, hasOutbox),
    ...group(durableOutboxCases, (subject) => hasOutbox(subject) && isDurable(subject)),
  ]
}

/** All cases, without a runner. Rejects with an AggregateError of those that failed; each message begins with the name of the case. */
export async function checkHost(create: () => HostUnderTest | Promise<HostUnderTest>): Promise<void> {
  const failures: Error[] = []
  for (const { name, run } of hostContract(create))
    await run().catch((error) => failures.push(new Error(`${name}: ${(error as Error).message}`, { cause: error })))
  if (failures.length > 0)
    throw new AggregateError(
      failures,
      `the host fails ${failures.length} cases: ${failures.map((each) => each.message).join('; ')}`,
    )
}
