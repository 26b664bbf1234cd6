// The host contract: what one transaction of the database commits becomes visible together. The cases look at the database while it
// works, between any two of its asynchronous steps.

import assert from 'node:assert/strict'
import { setImmediate } from '../../util/timers.ts'
import { at, cat, dog, type HostCase, type HostScene, insert, remoteTable } from './scene.ts'

/** Each case is repeated: a window between two transactions of the database may be short. */
export const REPETITIONS = 5
const ROWS_IN_BATCH = 50
/** Looks in one turn of the event loop, between the microtasks of the database. */
const LOOKS_IN_TURN = 200

/**
 * Starts `work`, and calls `isVisible` until it returns true. Then calls `check`, at once: in the same microtask, if `isVisible` is
 * synchronous. Rejects as `work` and `check` do.
 */
export async function whenVisible(
  work: () => Promise<unknown>,
  isVisible: () => boolean | Promise<boolean>,
  check: () => Promise<void>,
): Promise<void> {
  let isDone = false
  const working = work().finally(() => {
    isDone = true
  })
  // Reported below; not to be taken for unhandled before that.
  working.catch(() => {})
  const look = async () => {
    const found = isVisible()
    const visible = typeof found === 'boolean' ? found : await found
    if (visible) await check()
    return visible
  }
  for (let looks = 1; !isDone && !(await look()); looks++)
    if (looks % LOOKS_IN_TURN === 0) await new Promise((resolve) => setImmediate(resolve))
  await working
}

/** A batch of many rows, the checkpoint behind it, and the keys of its rows. */
export function manyRows(scene: HostScene, round: number) {
  const keys = Array.from({ length: ROWS_IN_BATCH }, (_, index) => round * ROWS_IN_BATCH + index)
  const batch = scene.batch(keys.map((id) => scene.transaction(at(id), insert({ id, name: 'Rex' }))))
  return { batch: { ...batch, checkpoint: { epoch: 'e', sequence: round } }, keys, first: keys[0]!, last: keys.at(-1)! }
}

const exists = (scene: HostScene, key: number): boolean | Promise<boolean> => {
  const found = scene.subject.read(dog.database, dog.table, key)
  return found instanceof Promise ? found.then((record) => record !== undefined) : found !== undefined
}

export const storedSequence = async (scene: HostScene) =>
  (await scene.host.loadCheckpoint(remoteTable('node2')))?.sequence

export const atomicityCases: Record<string, HostCase> = {
  'rows are never visible without their checkpoint': async (scene) => {
    await scene.tables(dog)
    for (let round = 1; round <= REPETITIONS; round++) {
      const { batch, first, last } = manyRows(scene, round)
      await whenVisible(
        () => scene.host.apply(batch),
        () => exists(scene, first),
        async () => {
          const message = 'rows and checkpoint are committed in one transaction of the database'
          assert.equal(await storedSequence(scene), round, message)
          assert.ok(await exists(scene, last), 'all rows of a batch are committed in one transaction of the database')
        },
      )
      assert.equal(await storedSequence(scene), round)
    }
  },
  'a checkpoint is never visible without its rows': async (scene) => {
    await scene.tables(dog)
    for (let round = 1; round <= REPETITIONS; round++) {
      const { batch, first, last } = manyRows(scene, round)
      await whenVisible(
        () => scene.host.apply(batch),
        async () => (await storedSequence(scene)) === round,
        async () => {
          for (const key of [first, last])
            assert.ok(await exists(scene, key), 'rows and checkpoint are committed in one transaction of the database')
        },
      )
    }
  },
}

export const dropCases: Record<string, HostCase> = {
  'dropping a table removes its checkpoints in the same transaction, and no others': async (scene) => {
    await scene.tables(dog, cat)
    const checkpoint = { epoch: 'e', sequence: 7 }
    const sources = [remoteTable('node2'), remoteTable('node3'), remoteTable('node2', cat)]
    for (const source of sources) await scene.host.apply(scene.batch([], { source, checkpoint }))
    await scene.apply(at(1), insert({ id: 1, name: 'Rex' }))
    const isDropped = async () => !(await scene.host.describe()).some(({ table }) => table === 'dog')
    await whenVisible(
      async () => scene.subject.dropTable!(dog.database, dog.table),
      isDropped,
      async () => {
        const message = 'the checkpoints are removed in the transaction that drops the table'
        assert.equal(await scene.host.loadCheckpoint(remoteTable('node2')), undefined, message)
      },
    )
    assert.ok(await isDropped(), 'the table is dropped')
    if (scene.subject.reopen) await scene.reopen()
    for (const source of sources.slice(0, 2)) assert.equal(await scene.host.loadCheckpoint(source), undefined)
    assert.deepEqual(await scene.host.loadCheckpoint(sources[2]!), checkpoint, 'other tables keep their checkpoints')
    await scene.tables(dog)
    await scene.has(undefined)
    assert.equal(await scene.host.loadCheckpoint(remoteTable('node2')), undefined)
  },
}
