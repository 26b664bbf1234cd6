// The host contract: transactions that are not stored in the outbox because clustering is disabled, of hosts that implement `lastUnrecorded`.

import assert from 'node:assert/strict'
import { at, cat, dog, type HostCase, insert } from './scene.ts'

export const unrecordedCases: Record<string, HostCase> = {
  'lastUnrecorded has the timestamp of the last transaction on the table that is not in the outbox': async (scene) => {
    const { subject } = scene
    await scene.tables(dog, cat)
    await scene.commit('recorded', insert({ id: 1 }))
    assert.equal((await scene.host.lastUnrecorded!(dog)) ?? undefined, undefined)
    await subject.commitUnrecorded!([insert({ id: 2 })], at(10))
    await subject.commitUnrecorded!([insert({ id: 3 })], at(20))
    await scene.has({ id: 3 }, 3)
    const outbox = await scene.outbox()
    assert.deepEqual(scene.named(outbox), ['recorded'])
    assert.equal(await scene.host.lastUnrecorded!(dog), at(20))
    assert.equal((await scene.host.lastUnrecorded!(cat)) ?? undefined, undefined, 'of another table')
    await scene.host.confirmPublished!({ positions: [], upTo: outbox.at(-1)! })
    await scene.commit('later', insert({ id: 4 }))
    if (subject.reopen) await scene.reopen()
    assert.equal(await scene.host.lastUnrecorded!(dog), at(20), 'it stays')
  },
}
