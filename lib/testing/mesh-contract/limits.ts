// The mesh contract: limits of the local streams. Each case opens a node, because limits hold for all streams of a node.

import assert from 'node:assert/strict'
import type { TableName } from '../../mesh/mesh.ts'
import { delay } from '../../util/timers.ts'
import { eventually } from '../eventually.ts'
import {
  append,
  type MeshCase,
  message,
  type OpenMesh,
  range,
  sequences,
  sourceOf,
  take,
  withTimeout,
} from './scene.ts'

/** First sequence and number of messages. */
const extent = ({ node, mesh }: OpenMesh, table: TableName): Promise<number[]> =>
  mesh.streamState({ node, ...table }, withTimeout).then((state) => [state!.firstSequence, state!.messages])

export const limitCases: Record<string, MeshCase> = {
  'maxMsgs limits existing streams and new ones': (scene) =>
    scene.withNode('counted', async (open) => {
      const { mesh } = open
      const streams = [await scene.newStream(5, open), await scene.newStream(2, open), await scene.newStream(9, open)]
      await mesh.setLimits({ maxMsgs: 3 })
      assert.deepEqual(await Promise.all(streams.map((table) => extent(open, table))), [
        [3, 3],
        [1, 2],
        [7, 3],
      ])
      assert.equal(await append(mesh, streams[0]!, message('next'), { sequence: 5 }), 6)
      assert.deepEqual(await extent(open, streams[0]!), [4, 3])
      assert.deepEqual(await extent(open, await scene.newStream(7, open)), [5, 3])
      await mesh.setLimits({})
      assert.deepEqual(await extent(open, await scene.newStream(7, open)), [1, 7])
      assert.deepEqual(await extent(open, streams[0]!), [4, 3])
    }),
  'maxBytes limits the size': (scene) =>
    scene.withNode('sized', async (open) => {
      const table = await scene.newStream(0, open)
      const large = { data: new Uint8Array(10_000), headers: {} }
      for (const sequence of range(0, 9)) await append(open.mesh, table, large, { sequence })
      await open.mesh.setLimits({ maxBytes: 45_000 })
      assert.deepEqual(await extent(open, table), [7, 4])
      await append(open.mesh, table, large, { sequence: 10 })
      assert.deepEqual(await extent(open, table), [8, 4])
    }),
  'maxAge limits the age, also of existing messages': (scene) =>
    scene.withNode('aged', async (open) => {
      const table = await scene.newStream(3, open)
      await open.mesh.setLimits({ maxAge: 1 })
      await delay(700)
      await append(open.mesh, table, message('young'), { sequence: 3 })
      // A server may check once a second: then the young message can expire with the old ones.
      await eventually('the old messages expire', async () => (await extent(open, table))[0]! >= 4)
      await eventually('all messages expire', async () => (await extent(open, table))[1] === 0)
      assert.deepEqual(await extent(open, table), [5, 0])
      assert.equal(await append(open.mesh, table, message('next'), { sequence: 4 }), 5)
    }),
  'does not change the description, also when both change at once': (scene) =>
    scene.withNode('described', async (open) => {
      const table = await scene.newStream(1, open)
      for (const round of range(1, 10)) {
        await Promise.all([
          open.mesh.describeStream(table, `round ${round}`),
          open.mesh.setLimits({ maxMsgs: 100 + round }),
          open.mesh.ensureStream(table, ''),
        ])
        assert.equal((await scene.state(table, open))?.description, `round ${round}`)
      }
    }),
  'limits set while disconnected take effect after the reconnect': (scene) =>
    scene.withNode('limited-later', async (open) => {
      const table = await scene.newStream(5, open)
      await scene.network.restartServer(open.node)
      await eventually('the mesh is disconnected', () => open.states.includes('disconnected'))
      await open.mesh.setLimits({ maxMsgs: 2 })
      await eventually('the mesh is connected again', () => open.mesh.state === 'connected')
      await eventually('the limits are in effect', async () => (await extent(open, table))[1] === 2)
    }),
  'a reader sees removed messages as a jump of the sequence': (scene) =>
    scene.withNode('overtaken', async (open) => {
      const table = await scene.newStream(10, open)
      const reader = await open.mesh.read(sourceOf(open, table), 1, { ...withTimeout, maxMessages: 2 })
      assert.deepEqual(sequences(await take(reader, 2)), [1, 2])
      // The reader keeps what it has buffered: give messages 3 and 4 time to arrive.
      await delay(50)
      await open.mesh.setLimits({ maxMsgs: 3 })
      assert.deepEqual(sequences(await take(reader, 5)), [3, 4, 8, 9, 10])
      reader.close()
    }),
}
