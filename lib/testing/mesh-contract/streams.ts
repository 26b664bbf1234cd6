// The mesh contract: creating, describing, appending to and purging the local streams.

import assert from 'node:assert/strict'
import type { MeshError } from '../../mesh/mesh.ts'
import { delay } from '../../util/timers.ts'
import { eventually } from '../eventually.ts'
import {
  aborted,
  append,
  type MeshCase,
  type MeshScene,
  meshError,
  message,
  range,
  sourceOf,
  withTimeout,
} from './scene.ts'

export const streamCases: Record<string, MeshCase> = {
  'ensureStream creates an empty stream with its description': async (scene) => {
    const state = await scene.node1.mesh.ensureStream(scene.newTable(), 'of dogs')
    assert.deepEqual(
      { ...state, created: '' },
      { description: 'of dogs', created: '', firstSequence: 1, lastSequence: 0, messages: 0 },
    )
    assert.notEqual(state.created, '')
  },
  'ensureStream does not change an existing stream': async (scene) => {
    const table = await scene.newStream(3)
    const before = await scene.state(table)
    assert.deepEqual(await scene.node1.mesh.ensureStream(table, 'another description'), before)
    assert.equal(before?.lastSequence, 3)
  },
  'describeStream changes only the description': async (scene) => {
    const { mesh } = scene.node1
    const table = await scene.newStream(2)
    const before = await mesh.ensureStream(table, '')
    await mesh.describeStream(table, 'new')
    assert.deepEqual(await mesh.ensureStream(table, ''), { ...before, description: 'new' })
  },
  'describeStream rejects not_found without a stream': async (scene) => {
    await assert.rejects(scene.node1.mesh.describeStream(scene.newTable(), 'new'), meshError('not_found'))
  },
  'streams of different tables and nodes are separate': async (scene) => {
    const { node1, node2 } = scene
    const [table1, table2] = [scene.newTable(), scene.newTable()]
    await node1.mesh.ensureStream(table1, 'on node1')
    await node2.mesh.ensureStream(table2, 'on node2')
    for (const { mesh } of [node1, node2]) {
      assert.equal((await mesh.streamState(sourceOf(node1, table1), withTimeout))?.description, 'on node1')
      assert.equal((await mesh.streamState(sourceOf(node2, table2), withTimeout))?.description, 'on node2')
      assert.equal(await mesh.streamState(sourceOf(node2, table1), withTimeout), undefined)
      assert.equal(await mesh.streamState(sourceOf(node1, table2), withTimeout), undefined)
    }
  },
  'streamState rejects no_responders and aborted': async (scene) => {
    const { mesh } = scene.node1
    const unknown = { node: 'unknown', ...scene.newTable() }
    await assert.rejects(mesh.streamState(unknown, withTimeout), meshError('no_responders'))
    const source = sourceOf(scene.node2, scene.newTable())
    await assert.rejects(mesh.streamState(source, aborted()), meshError('aborted'))
  },
}

export const appendCases: Record<string, MeshCase> = {
  'numbers messages from 1 in the order of the calls, and calls done once, after the call': async (scene) => {
    const table = scene.newTable()
    await scene.node1.mesh.ensureStream(table, '')
    const done: { error: MeshError | undefined; sequence: number }[] = []
    for (const last of range(0, 99))
      scene.node1.mesh.append(table, message(`${last}`), { sequence: last }, (error, sequence) =>
        done.push({ error, sequence }),
      )
    assert.equal(done.length, 0)
    await eventually('every append is done', () => done.length >= 100)
    await delay(20)
    assert.deepEqual(
      done,
      range(1, 100).map((sequence) => ({ error: undefined, sequence })),
    )
    const state = await scene.state(table)
    assert.deepEqual([state?.firstSequence, state?.lastSequence, state?.messages], [1, 100, 100])
  },
  'rejects wrong_sequence for another sequence than the last, and stores nothing': async (scene) => {
    const { mesh } = scene.node1
    const table = await scene.newStream(2)
    for (const sequence of [0, 1, 3])
      await assert.rejects(append(mesh, table, message('x'), { sequence }), meshError('wrong_sequence'))
    assert.equal((await scene.state(table))?.lastSequence, 2)
    assert.equal(await append(mesh, table, message('x'), { sequence: 2 }), 3)
  },
  'rejects every append after a rejected one': async (scene) => {
    const table = await scene.newStream(1)
    const results = await Promise.allSettled(
      [1, 3, 3, 4].map((sequence) => append(scene.node1.mesh, table, message('x'), { sequence })),
    )
    assert.deepEqual(
      results.map((result) => (result.status === 'fulfilled' ? result.value : result.reason.code)),
      [2, 'wrong_sequence', 'wrong_sequence', 'wrong_sequence'],
    )
  },
  'compares the id of the last message when one is expected': async (scene) => {
    const { mesh } = scene.node1
    const table = scene.newTable()
    await mesh.ensureStream(table, '')
    const id = (value: string) => `${table.table} ${value}`
    const withId = (value: string) => message(value, { 'Nats-Msg-Id': id(value) })
    const wrong = meshError('wrong_sequence')
    assert.equal(await append(mesh, table, withId('a'), { sequence: 0 }), 1)
    await assert.rejects(append(mesh, table, withId('b'), { sequence: 1, id: id('z') }), wrong)
    await assert.rejects(append(mesh, table, withId('b'), { sequence: 0, id: id('a') }), wrong)
    assert.equal(await append(mesh, table, withId('b'), { sequence: 1, id: id('a') }), 2)
    assert.equal(await append(mesh, table, withId('c'), { sequence: 2 }), 3)
  },
  'of two appends that expect the same sequence, the first wins': async (scene) => {
    const table = await scene.newStream(1)
    const results = await Promise.allSettled(
      ['a', 'b'].map((body) => append(scene.node1.mesh, table, message(body), { sequence: 1 })),
    )
    assert.deepEqual(
      results.map(({ status }) => status),
      ['fulfilled', 'rejected'],
    )
  },
  'rejects not_found without a stream': async (scene) => {
    await assert.rejects(
      append(scene.node1.mesh, scene.newTable(), message('x'), { sequence: 0 }),
      meshError('not_found'),
    )
  },
  'reports too_large through done, without throwing': async (scene) => {
    const { mesh } = scene.node1
    const table = await scene.newStream(0)
    assert.ok(mesh.maxPayload > 1024 * 1024)
    const large = { data: new Uint8Array(Math.max(mesh.maxPayload, 64 * 1024 * 1024) + 1), headers: {} }
    await assert.rejects(append(mesh, table, large, { sequence: 0 }), meshError('too_large'))
    assert.equal(await append(mesh, table, message('small'), { sequence: 0 }), 1)
  },
  'stores the bytes and headers of the moment of the call': async (scene) => {
    const { node1, node2 } = scene
    const table = scene.newTable()
    await node1.mesh.ensureStream(table, '')
    const data = Uint8Array.from(range(0, 255))
    const headers = { origin: 'node1', 'Nats-Msg-Id': `${table.table} id`, Epoch: 'é 1' }
    const passed = { ...headers }
    const stored = append(node1.mesh, table, { data, headers: passed }, { sequence: 0 })
    passed.origin = 'changed'
    await stored
    const reader = await node2.mesh.read(sourceOf(node1, table), 1, { ...withTimeout, maxMessages: 10 })
    const [entry] = await reader.next()
    reader.close()
    assert.deepEqual([...entry!.data], range(0, 255))
    for (const [key, value] of Object.entries(headers)) assert.equal(entry!.headers[key], value)
  },
}

/** First sequence and number of messages of a stream of `count` messages after a purge. The last sequence stays. */
async function purged(scene: MeshScene, count: number, options: { keep?: number; before?: number }): Promise<number[]> {
  const { mesh } = scene.node1
  const table = await scene.newStream(count)
  await mesh.purgeStream(table, options)
  const { firstSequence, lastSequence, messages } = (await scene.state(table))!
  assert.equal(lastSequence, count)
  assert.equal(await append(mesh, table, message('next'), { sequence: count }), count + 1)
  return [firstSequence, messages]
}

export const purgeCases: Record<string, MeshCase> = {
  'keep: keeps the last messages': async (scene) => assert.deepEqual(await purged(scene, 5, { keep: 2 }), [4, 2]),
  'keep: keeps all messages when there are fewer': async (scene) =>
    assert.deepEqual(await purged(scene, 3, { keep: 9 }), [1, 3]),
  'before: removes the messages before a sequence': async (scene) =>
    assert.deepEqual(await purged(scene, 5, { before: 3 }), [3, 3]),
  'before: removes nothing before the first sequence': async (scene) =>
    assert.deepEqual(await purged(scene, 3, { before: 1 }), [1, 3]),
  'before: removes nothing before 0': async (scene) => assert.deepEqual(await purged(scene, 3, { before: 0 }), [1, 3]),
  'before: removes all messages before a sequence beyond the end, and keeps the numbering': async (scene) => {
    assert.deepEqual(await purged(scene, 3, { before: 4 }), [4, 0])
    assert.deepEqual(await purged(scene, 3, { before: 1_000 }), [4, 0])
  },
  'removes all messages without options': async (scene) => {
    assert.deepEqual(await purged(scene, 3, {}), [4, 0])
    assert.deepEqual(await purged(scene, 3, { keep: 0 }), [4, 0])
  },
  'can purge an empty stream, and purge again': async (scene) => {
    const { mesh } = scene.node1
    assert.deepEqual(await purged(scene, 0, {}), [1, 0])
    const table = await scene.newStream(4)
    await mesh.purgeStream(table, { before: 3 })
    await mesh.purgeStream(table, { before: 2 })
    await mesh.purgeStream(table, { keep: 1 })
    const state = await scene.state(table)
    assert.deepEqual([state?.firstSequence, state?.lastSequence, state?.messages], [4, 4, 1])
  },
  'does nothing without a stream': async (scene) => {
    const { mesh } = scene.node1
    const table = scene.newTable()
    await mesh.purgeStream(table, {})
    await mesh.purgeStream(table, { keep: 1 })
    await mesh.purgeStream(table, { before: 1 })
    assert.equal(await scene.state(table), undefined)
  },
}
