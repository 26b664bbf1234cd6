// The host contract: the outbox and the published positions, of hosts that have them.

import assert from 'node:assert/strict'
import type { PublishedPosition, Transaction, Write } from '../../host/host.ts'
import { at, cat, dog, type HostCase, insert, remove, update, upsert } from './scene.ts'

export const outboxCases: Record<string, HostCase> = {
  'local transactions are in the outbox unchanged, in commit order': async (scene) => {
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
    assert.equal(new Set(found.map(({ id }) => id)).size, 3, 'each id is unique')
    await scene.has(undefined)
  },
  'readOutbox continues after a transaction': async (scene) => {
    await scene.tables(dog)
    const transactions = []
    for (const id of ['one', 'two', 'three']) transactions.push(await scene.commit(id, insert({ id })))
    // A host may ignore `after` and begin at the start.
    const found = scene.named(await scene.outbox(transactions[0]))
    assert.ok(['two,three', 'one,two,three'].includes(found.join()), `after 'one' comes ${found}`)
  },
  'reading the outbox does not block commits': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1 }))
    const reading = scene.host.readOutbox!()[Symbol.asyncIterator]()
    assert.deepEqual(scene.named([(await reading.next()).value!]), ['one'])
    await scene.commit('two', insert({ id: 2 }))
    await reading.return?.()
    assert.deepEqual(scene.named(await scene.outbox()), ['one', 'two'])
  },
  'confirmPublished removes transactions up to one and stores the position of each table': async (scene) => {
    await scene.tables(dog, cat)
    for (const id of ['one', 'two', 'three', 'four']) await scene.commit(id, insert({ id }))
    const [one, two, three] = await scene.outbox()
    const progress = (table: typeof dog, sequence: number, id: string): PublishedPosition => ({
      ...table,
      epoch: 'e',
      sequence,
      id,
    })
    assert.equal(await scene.host.publishedPosition!('dev', 'dog'), undefined)
    await scene.host.confirmPublished!({ positions: [progress(dog, 1, 'one'), progress(cat, 9, 'x')], upTo: one })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'three', 'four'])
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'dog'), progress(dog, 1, 'one'))
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'cat'), progress(cat, 9, 'x'))
    await scene.host.confirmPublished!({ positions: [progress(dog, 5, 'five')] })
    assert.deepEqual(
      scene.named(await scene.outbox()),
      ['two', 'three', 'four'],
      'without a transaction nothing is removed',
    )
    await scene.host.confirmPublished!({ positions: [progress(dog, 3, 'three')], upTo: three, keep: [two!.id] })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'four'], 'kept transactions stay')
    assert.deepEqual(await scene.host.publishedPosition!('dev', 'dog'), progress(dog, 3, 'three'))
    await scene.host.confirmPublished!({ positions: [progress(dog, 3, 'three')], upTo: one })
    assert.deepEqual(scene.named(await scene.outbox()), ['two', 'four'], 'a removed transaction removes nothing')
  },
  'relayed transactions are added at the end of the outbox, with their origin': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1 }))
    const { sequence, index, ...transaction } = scene.transaction(at(1), insert({ id: 2 }))
    const relay: Transaction[] = [
      { ...transaction, id: 'relayed', origin: { node: 'node2', epoch: 'e', index, relayedBy: ['node2'] } },
    ]
    await scene.host.apply(scene.batch([{ ...transaction, sequence, index }], { relay }))
    const found = await scene.outbox()
    assert.deepEqual(scene.named(found), ['one', 'relayed'])
    assert.deepEqual(found[1]!.origin, relay[0]!.origin)
    assert.equal(found[1]!.timestamp, transaction.timestamp)
  },
  'a transaction without records is stored in the outbox too': async (scene) => {
    await scene.tables(dog)
    const writes: Write[] = [{ operation: 'upsert', ...dog, records: [] }]
    const marker = { id: 'marker', timestamp: at(0), writes }
    await scene.host.apply(scene.batch([], { relay: [marker] }))
    assert.deepEqual(await scene.outbox(), [marker])
  },
  'relayed transactions keep their user, trace and writes': async (scene) => {
    await scene.tables(dog)
    const { sequence, index, ...received } = scene.transaction(at(1), insert({ id: 2, name: 'Rex' }))
    const transaction: Transaction = {
      ...received,
      user: 'ann',
      trace: { traceparent: `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`, tracestate: 'vendor=1' },
      origin: { ...received.origin, relayedBy: ['node2', 'node1'] },
    }
    const batch = scene.batch([{ ...transaction, origin: received.origin, sequence, index }], { relay: [transaction] })
    await scene.host.apply(batch)
    if (scene.subject.reopen) await scene.reopen()
    const [found] = await scene.outbox()
    const { id, timestamp, user, writes, trace, origin } = found ?? ({} as Partial<Transaction>)
    assert.deepEqual({ id, timestamp, user, writes, trace, origin }, transaction)
  },
  'a local delete wins over older remote writes that arrive later': async (scene) => {
    await scene.tables(dog)
    const inserted = await scene.commit('one', insert({ id: 1, name: 'Rex' }))
    const deleted = await scene.commit('two', remove(1))
    await scene.host.confirmPublished!({ positions: [], upTo: deleted })
    await scene.apply(at(0), insert({ id: 1, name: 'older' }))
    await scene.apply(inserted.timestamp, update({ id: 1, name: 'older' }))
    await scene.has(undefined)
  },
  'timestamps decide between a local and a remote transaction': async (scene) => {
    await scene.tables(dog)
    await scene.commit('one', insert({ id: 1, name: 'here' }))
    await scene.apply(at(0), upsert({ id: 1, name: 'older' }))
    await scene.has({ id: 1, name: 'here' })
    await scene.apply(at(1_000), upsert({ id: 1, name: 'newer' }))
    await scene.has({ id: 1, name: 'newer' })
    assert.deepEqual(scene.named(await scene.outbox()), ['one'], 'a remote transaction is not in the outbox')
  },
}

export const durableOutboxCases: Record<string, HostCase> = {
  'the outbox and the published positions survive a restart': async (scene) => {
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
