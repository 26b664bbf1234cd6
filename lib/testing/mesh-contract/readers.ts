// The mesh contract: reading the streams of any node.

import assert from 'node:assert/strict'
import type { Entry } from '../../mesh/mesh.ts'
import { delay, systemTimers } from '../../util/timers.ts'
import {
  aborted,
  appendMany,
  deliveries,
  type MeshCase,
  meshError,
  range,
  sequences,
  sourceOf,
  take,
  textOf,
  withTimeout,
} from './scene.ts'

const reading = { ...withTimeout, maxMessages: 100 }

export const messageAtCases: Record<string, MeshCase> = {
  'returns the stored message with its headers': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(3)
    for (const { mesh } of [node1, node2]) {
      const source = sourceOf(node1, table)
      const reader = await mesh.read(source, 2, reading)
      const [read] = await reader.next()
      reader.close()
      const stored = await mesh.messageAt(source, 2, withTimeout)
      const comparable = (entry: Entry | undefined) =>
        entry && [entry.sequence, entry.headers, textOf(entry.data), Math.trunc(entry.time)]
      assert.deepEqual(comparable(stored), comparable(read))
    }
  },
  'is undefined for a message that the stream does not have': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(3)
    await node1.mesh.purgeStream(table, { before: 2 })
    const source = sourceOf(node1, table)
    for (const { mesh } of [node1, node2])
      for (const sequence of [1, 4]) assert.equal(await mesh.messageAt(source, sequence, withTimeout), undefined)
  },
}

export const sequenceAtCases: Record<string, MeshCase> = {
  'finds the first message at or after a time': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(2)
    await delay(20)
    const between = systemTimers.now()
    await delay(20)
    await appendMany(node1, table, 2, 2)
    for (const { mesh } of [node1, node2]) {
      const source = sourceOf(node1, table)
      assert.equal(await mesh.sequenceAt(source, between - 60_000, withTimeout), 1)
      assert.equal(await mesh.sequenceAt(source, between, withTimeout), 3)
      assert.equal(await mesh.sequenceAt(source, systemTimers.now() + 60_000, withTimeout), 5)
    }
  },
  'is last + 1 for an empty stream': async (scene) => {
    const { node1, node2 } = scene
    const empty = await scene.newStream(0)
    assert.equal(await node2.mesh.sequenceAt(sourceOf(node1, empty), systemTimers.now(), withTimeout), 1)
    const purged = await scene.newStream(3)
    await node1.mesh.purgeStream(purged, {})
    assert.equal(await node2.mesh.sequenceAt(sourceOf(node1, purged), 0, withTimeout), 4)
  },
  'is the first stored sequence for a time before the stream': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(5)
    await node1.mesh.purgeStream(table, { before: 3 })
    assert.equal(await node2.mesh.sequenceAt(sourceOf(node1, table), 0, withTimeout), 3)
  },
  'rejects not_found, no_responders and aborted': async (scene) => {
    const { node1, node2 } = scene
    const missing = sourceOf(node2, scene.newTable())
    await assert.rejects(node1.mesh.sequenceAt(missing, 0, withTimeout), meshError('not_found'))
    const unknown = { node: 'unknown', ...scene.newTable() }
    await assert.rejects(node1.mesh.sequenceAt(unknown, 0, withTimeout), meshError('no_responders'))
    const source = sourceOf(node2, await scene.newStream(1, node2))
    await assert.rejects(node1.mesh.sequenceAt(source, 0, aborted()), meshError('aborted'))
  },
}

export const readCases: Record<string, MeshCase> = {
  'delivers stored messages in order, once, numbered from 1': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(3)
    const started = systemTimers.now()
    for (const { mesh } of [node1, node2]) {
      const reader = await mesh.read(sourceOf(node1, table), 1, reading)
      const entries = await take(reader, 3)
      assert.deepEqual(sequences(entries), [1, 2, 3])
      assert.deepEqual(deliveries(entries), [1, 2, 3])
      assert.deepEqual(
        entries.map(({ data }) => textOf(data)),
        ['0', '1', '2'],
      )
      for (const { time } of entries) assert.ok(Math.abs(time - started) < 30_000, `${time}`)
      reader.close()
    }
  },
  'delivers new messages as they are appended': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(3)
    const reader = await node2.mesh.read(sourceOf(node1, table), 4, reading)
    const next = reader.next()
    await appendMany(node1, table, 1, 3)
    assert.deepEqual(sequences(await next), [4])
    await appendMany(node1, table, 2, 4)
    const later = await take(reader, 2)
    assert.deepEqual(sequences(later), [5, 6])
    assert.deepEqual(deliveries(later), [2, 3])
    reader.close()
  },
  'begins at the given sequence, or at the first stored one after it': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(6)
    await node1.mesh.purgeStream(table, { before: 3 })
    for (const [sequence, first] of [
      [0, 3],
      [1, 3],
      [3, 3],
      [5, 5],
    ] as const) {
      const reader = await node2.mesh.read(sourceOf(node1, table), sequence, reading)
      const [entry] = await reader.next()
      assert.deepEqual([entry?.sequence, entry?.delivery], [first, 1])
      reader.close()
    }
  },
  'begins at the end of the stream when the given sequence is beyond it': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(2)
    const reader = await node2.mesh.read(sourceOf(node1, table), 50, reading)
    await appendMany(node1, table, 1, 2)
    assert.deepEqual(sequences(await reader.next()), [3])
    reader.close()
  },
  'waits on an empty stream': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(0)
    const reader = await node2.mesh.read(sourceOf(node1, table), 1, reading)
    const next = reader.next()
    await delay(50)
    await appendMany(node1, table, 1)
    assert.deepEqual(sequences(await next), [1])
    reader.close()
  },
  'buffers at most maxMessages, and delivers everything': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(500)
    for (const maxMessages of [1, 7, 1_000]) {
      const reader = await node2.mesh.read(sourceOf(node1, table), 1, { ...withTimeout, maxMessages })
      const all: Entry[] = []
      while (all.length < 500) {
        // A slow consumer at first: the buffer fills up.
        if (all.length < 3 * maxMessages) await delay(20)
        const entries = await reader.next()
        assert.ok(entries.length >= 1 && entries.length <= maxMessages, `${entries.length} of ${maxMessages}`)
        all.push(...entries)
      }
      assert.deepEqual(sequences(all), range(1, 500))
      assert.deepEqual(deliveries(all), range(1, 500))
      reader.close()
    }
  },
  'shows purged messages as a jump of the sequence, not of the delivery': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(10)
    const reader = await node2.mesh.read(sourceOf(node1, table), 3, { ...withTimeout, maxMessages: 2 })
    // The reader keeps what it has buffered: give messages 3 and 4 time to arrive.
    await delay(50)
    await node1.mesh.purgeStream(table, { before: 9 })
    const entries = await take(reader, 4)
    assert.deepEqual(sequences(entries), [3, 4, 9, 10])
    assert.deepEqual(deliveries(entries), [1, 2, 3, 4])
    reader.close()
  },
  'readers of one stream are independent': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(20)
    const readers = await Promise.all(
      [node1, node2, node2].map(({ mesh }) => mesh.read(sourceOf(node1, table), 1, { ...withTimeout, maxMessages: 3 })),
    )
    const all = await Promise.all(readers.map((reader) => take(reader, 20)))
    for (const entries of all) assert.deepEqual(sequences(entries), range(1, 20))
    for (const reader of readers) reader.close()
  },
  'next rejects reader_lost after close: pending calls and later ones': async (scene) => {
    const { node1, node2 } = scene
    const table = await scene.newStream(0)
    const reader = await node2.mesh.read(sourceOf(node1, table), 1, reading)
    const pending = assert.rejects(reader.next(), meshError('reader_lost'))
    reader.close()
    reader.close()
    await pending
    await assert.rejects(reader.next(), meshError('reader_lost'))
    await appendMany(node1, table, 1)
    await assert.rejects(reader.next(), meshError('reader_lost'))
  },
  'rejects not_found, no_responders and aborted': async (scene) => {
    const { node1, node2 } = scene
    const missing = sourceOf(node2, scene.newTable())
    await assert.rejects(node1.mesh.read(missing, 1, reading), meshError('not_found'))
    const unknown = { node: 'unknown', ...scene.newTable() }
    await assert.rejects(node1.mesh.read(unknown, 1, reading), meshError('no_responders'))
    const source = sourceOf(node2, await scene.newStream(1, node2))
    await assert.rejects(node1.mesh.read(source, 1, { ...reading, ...aborted() }), meshError('aborted'))
  },
}
