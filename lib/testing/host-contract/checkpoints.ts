// The host contract: checkpoints, atomic batches, and what survives a restart.

import assert from 'node:assert/strict'
import type { Checkpoint, Write } from '../../host/host.ts'
import { at, cat, dog, type HostCase, insert, remoteTable, remove, update, upsert } from './scene.ts'

const checkpoint: Checkpoint = {
  epoch: 'e1',
  sequence: 7,
  lastId: 'tx-7',
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
  copy: { reason: 'gap', after: 's"key"', rows: 12 },
}

export const checkpointCases: Record<string, HostCase> = {
  'a repeated batch changes nothing': async (scene) => {
    await scene.tables(dog)
    const batch = scene.batch([
      scene.transaction(at(1), insert({ id: 1, name: 'Rex' })),
      scene.transaction(at(2), update({ id: 1, age: 3 })),
    ])
    await scene.host.apply(batch)
    await scene.host.apply(batch)
    await scene.has({ id: 1, name: 'Rex', age: 3 })
  },
  'a checkpoint is stored unchanged for each source': async (scene) => {
    await scene.tables(dog, cat)
    assert.equal(await scene.host.loadCheckpoint(remoteTable('node2')), undefined)
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.host.apply(scene.batch([], { source: remoteTable('node3'), checkpoint: { epoch: 'x', sequence: 1 } }))
    await scene.host.apply(
      scene.batch([], { source: remoteTable('node2', cat), checkpoint: { epoch: 'y', sequence: 2 } }),
    )
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node2')), checkpoint)
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node3')), { epoch: 'x', sequence: 1 })
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node2', cat)), { epoch: 'y', sequence: 2 })
    await scene.host.apply(scene.batch([], { checkpoint: { epoch: 'e1', sequence: 8 } }))
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node2')), { epoch: 'e1', sequence: 8 })
  },
  'deleteCheckpoint deletes one checkpoint, and can be repeated': async (scene) => {
    await scene.tables(dog)
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.host.apply(scene.batch([], { source: remoteTable('node3'), checkpoint }))
    await scene.host.deleteCheckpoint(remoteTable('node2'))
    await scene.host.deleteCheckpoint(remoteTable('node2'))
    assert.equal(await scene.host.loadCheckpoint(remoteTable('node2')), undefined)
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node3')), checkpoint)
  },
  'a write to a missing table is rejected, and creates no table': async (scene) => {
    await scene.tables(dog)
    const missing = { database: 'dev', table: 'table_that_is_not_there' }
    const writes: Write[] = [
      insert({ id: 1 }, missing),
      { ...insert({ id: 1 }, missing), operation: 'update' },
      { ...insert({ id: 1 }, missing), operation: 'upsert' },
      { operation: 'delete', ...missing, ids: [1] },
    ]
    for (const write of writes) {
      const batch = scene.batch([scene.transaction(at(1), write)], { source: remoteTable('node2', missing) })
      await assert.rejects(
        async () => scene.host.apply(batch),
        (error) => error !== undefined,
        `${write.operation} of a missing table is rejected`,
      )
    }
    assert.deepEqual(
      (await scene.host.describe()).filter(({ database }) => database === 'dev').map(({ table }) => table),
      ['dog'],
    )
    assert.equal(await scene.host.loadCheckpoint(remoteTable('node2', missing)), undefined)
  },
  'a rejected batch changes nothing: no rows, no checkpoint, no outbox entries': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    const before = await scene.host.loadCheckpoint(remoteTable('node2'))
    const missing = { database: 'dev', table: 'table_that_is_not_there' }
    const transactions = [
      scene.transaction(at(2), update({ id: 1, name: 'Max' }), insert({ id: 2, name: 'Ida' })),
      scene.transaction(at(3), insert({ id: 3 }, missing)),
    ]
    const relay = scene.host.readOutbox ? { relay: [transactions[0]!] } : {}
    await assert.rejects(
      async () => scene.host.apply(scene.batch(transactions, relay)),
      (error) => error !== undefined,
      'a write to a missing table is rejected',
    )
    await scene.has({ id: 1, name: 'Rex' })
    await scene.has(undefined, 2)
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node2')), before)
    if (scene.host.readOutbox) assert.deepEqual(await scene.outbox(), [])
  },
}

export const durableCases: Record<string, HostCase> = {
  'applied batches survive a restart: rows, tombstones, timestamps, checkpoint, tables': async (scene) => {
    await scene.tables(dog)
    await scene.apply(at(5), insert({ id: 1, name: 'Rex' }), remove(2))
    await scene.host.apply(scene.batch([], { checkpoint }))
    await scene.reopen()
    await scene.has({ id: 1, name: 'Rex' })
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node2')), checkpoint)
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
