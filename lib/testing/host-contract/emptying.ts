// The host contract: a table that is emptied for a copy, of hosts that implement `emptyTable`.

import assert from 'node:assert/strict'
import type { Checkpoint } from '../../host/host.ts'
import { at, cat, dog, type HostCase, insert, remoteTable, remove } from './scene.ts'

const checkpoint: Checkpoint = {
  epoch: 'e1',
  sequence: 7,
  copy: { reason: 'requested', rows: 0, acceptOld: true, replace: 'emptied' },
  request: at(1),
}
const source = remoteTable('node2')

export const emptyingCases: Record<string, HostCase> = {
  'a table that is emptied has neither rows nor tombstones, and the checkpoint': async (scene) => {
    await scene.tables(dog, cat)
    const other = scene.batch([scene.transaction(at(5), insert({ id: 1 }), insert({ id: 2 }), remove(2))])
    await scene.host.apply({ ...other, source: remoteTable('node3') })
    await scene.apply(at(6), insert({ id: 1, name: 'cat' }, cat))
    await scene.host.emptyTable!({ source, checkpoint })
    await scene.has(undefined, 1)
    if (scene.host.readRows) assert.deepEqual(await scene.rows(), [])
    assert.deepEqual(await scene.host.loadCheckpoint(source), checkpoint)
    assert.deepEqual(await scene.host.loadCheckpoint(remoteTable('node3')), other.checkpoint, 'other checkpoints stay')
    await scene.has({ name: 'cat' }, 1, cat)
    await scene.apply(at(3), insert({ id: 1, name: 'older' }), insert({ id: 2, name: 'older' }))
    for (const id of [1, 2]) await scene.has({ id, name: 'older' }, id)
  },
  'emptying a table leaves the outbox as it is': async (scene) => {
    if (!scene.host.readOutbox || !scene.subject.commit) return
    await scene.tables(dog)
    await scene.subject.commit([insert({ id: 1 })], at(1))
    const outbox = async () => {
      const ids: string[] = []
      for await (const { id } of scene.host.readOutbox!()) ids.push(id)
      return ids
    }
    const before = await outbox()
    await scene.host.emptyTable!({ source, checkpoint })
    assert.deepEqual(await outbox(), before)
  },
  'an emptied table has at least the horizon that is given': async (scene) => {
    if (!scene.host.horizon) return
    await scene.tables(dog)
    await scene.host.emptyTable!({ source, checkpoint, horizon: at(50) })
    assert.equal(await scene.host.horizon(dog), at(50))
    await scene.host.emptyTable!({ source, checkpoint, horizon: at(40) })
    await scene.host.emptyTable!({ source, checkpoint })
    assert.equal(await scene.host.horizon(dog), at(50))
  },
}
