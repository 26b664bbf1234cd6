// The mesh contract: opening and closing, members, and what happens when servers or links break.

import assert from 'node:assert/strict'
import type { MeshErrorCode } from '../../mesh/mesh.ts'
import { delay } from '../../util/timers.ts'
import { eventually } from '../eventually.ts'
import { freePorts } from '../free-ports.ts'
import {
  aborted,
  append,
  bytes,
  type MeshCase,
  type MeshScene,
  meshError,
  message,
  type OpenMesh,
  PROBE_TIMEOUT_MS,
  range,
  sequences,
  sourceOf,
  take,
  textOf,
  withTimeout,
} from './scene.ts'

const MEMBERS_TIMEOUT_MS = 1_000

/** A reader of an empty stream: its `next` waits until the reader is lost, which this promise resolves at. */
async function pendingReader(scene: MeshScene, reader: OpenMesh, owner: OpenMesh): Promise<{ lost: Promise<void> }> {
  const table = await scene.newStream(0, owner)
  const opened = await reader.mesh.read(sourceOf(owner, table), 1, { ...withTimeout, maxMessages: 10 })
  return { lost: assert.rejects(opened.next(), meshError('reader_lost')) }
}

export const openCases: Record<string, MeshCase> = {
  'reports the states connecting and connected': async ({ node1 }) => {
    assert.deepEqual(node1.states, ['connecting', 'connected'])
    assert.equal(node1.mesh.state, 'connected')
  },
  'each node has a session, different from that of other nodes': async ({ node1, node2 }) => {
    assert.notEqual(node1.mesh.session, '')
    assert.notEqual(node1.mesh.session, node2.mesh.session)
  },
}

export const memberCases: Record<string, MeshCase> = {
  'are all nodes that answer: the local node first, then by name': async (scene) => {
    const { mesh } = scene.node2
    await scene.withNode('node0', async () => {
      const members = await eventually('all three nodes see each other', async () => {
        const found = await mesh.members({ timeout: MEMBERS_TIMEOUT_MS })
        return found.length === 3 && found.every(({ connectedNodes }) => connectedNodes.length === 2) && found
      })
      assert.deepEqual(
        members.map(({ node, connectedNodes }) => [node, connectedNodes]),
        [
          ['node2', ['node0', 'node1']],
          ['node0', ['node1', 'node2']],
          ['node1', ['node0', 'node2']],
        ],
      )
      for (const { responseTime } of members) assert.ok(responseTime >= 0 && responseTime <= MEMBERS_TIMEOUT_MS)
    })
    await eventually(
      'the closed node is no member',
      async () => (await mesh.members({ timeout: MEMBERS_TIMEOUT_MS })).length === 2,
    )
  },
  'show the routes of setRoutes': async ({ node1 }) => {
    const { mesh } = node1
    const routes = async () => (await mesh.members({ timeout: MEMBERS_TIMEOUT_MS }))[0]!.routes
    const before = await routes()
    const [port = 0] = await freePorts(1)
    const hub = [...before, { host: '127.0.0.1', port }]
    await mesh.setRoutes({ hub, leaf: [] })
    assert.deepEqual(await routes(), hub)
    await mesh.setRoutes({ hub: before, leaf: [] })
    assert.deepEqual(await routes(), before)
    assert.equal(textOf(await mesh.request('node2', bytes('still'), withTimeout)), 'still')
  },
  'rejects aborted': async ({ node1 }) => {
    await assert.rejects(node1.mesh.members(aborted()), meshError('aborted'))
  },
}

export const restartCases: Record<string, MeshCase> = {
  'the mesh is disconnected, then continues in another session with the same streams': (scene) =>
    scene.withNode('restarted', async (open) => {
      const { mesh } = open
      await scene.connected(open, scene.node2)
      const table = await scene.newStream(3, open)
      const before = await scene.state(table, open)
      const { session } = mesh
      const readers = [await pendingReader(scene, open, open), await pendingReader(scene, open, scene.node2)]
      const results: (MeshErrorCode | undefined)[][] = range(3, 52).map(() => [])
      for (const [index, calls] of results.entries())
        mesh.append(table, message('x'), { sequence: 3 + index }, (error) => calls.push(error?.code))
      await scene.network.restartServer(open.node)
      await eventually('the mesh is disconnected', () => open.states.includes('disconnected'))
      await eventually('the mesh is connected again', () => mesh.state === 'connected')
      assert.deepEqual(open.states, ['connecting', 'connected', 'disconnected', 'connected'])
      await Promise.all(readers.map(({ lost }) => lost))

      await eventually('every append is done', () => results.every((calls) => calls.length > 0))
      await delay(50)
      for (const calls of results) {
        assert.equal(calls.length, 1)
        assert.ok(calls[0] === undefined || calls[0] === 'disconnected', calls[0])
      }
      const acknowledged = results.filter(([error]) => error === undefined).length
      const after = (await scene.state(table, open))!
      assert.ok(after.lastSequence >= 3 + acknowledged && after.lastSequence <= 53, `${after.lastSequence}`)
      assert.equal(after.created, before?.created)
      assert.notEqual(mesh.session, session)
      const expected = { sequence: after.lastSequence }
      assert.equal(await append(mesh, table, message('y'), expected), after.lastSequence + 1)
      await eventually('the handler from before the restart answers', () =>
        scene.node2.mesh.request('restarted', bytes('again'), { timeout: PROBE_TIMEOUT_MS }).then(
          (answer) => textOf(answer) === 'again',
          () => false,
        ),
      )
    }),
  'every call rejects disconnected while the mesh is disconnected': (scene) =>
    scene.withNode('down', async (open) => {
      const { mesh } = open
      const table = await scene.newStream(1, open)
      const rejections: Promise<void>[] = []
      const callAll = () => {
        const disconnected = meshError('disconnected')
        const source = sourceOf(open, table)
        rejections.push(
          assert.rejects(mesh.request('node1', bytes('?'), withTimeout), disconnected),
          assert.rejects(mesh.ensureStream(table, ''), disconnected),
          assert.rejects(mesh.streamState(source, withTimeout), disconnected),
          assert.rejects(mesh.sequenceAt(source, 0, withTimeout), disconnected),
          assert.rejects(mesh.read(source, 1, { ...withTimeout, maxMessages: 1 }), disconnected),
          assert.rejects(append(mesh, table, message('x'), { sequence: 1 }), disconnected),
        )
        assert.throws(() => mesh.listen(() => {}), disconnected)
        mesh.announce(bytes('lost'))
      }
      const restarted = scene.network.restartServer(open.node)
      await eventually('the mesh is disconnected', () => {
        if (mesh.state === 'disconnected' && rejections.length === 0) callAll()
        return rejections.length > 0
      })
      await Promise.all([restarted, ...rejections])
      await eventually('the mesh is connected again', () => mesh.state === 'connected')
    }),
}

export const relinkCases: Record<string, MeshCase> = {
  'the listener is notified, and readers of remote streams are lost': (scene) =>
    scene.withNode('relinked', async (open) => {
      await scene.connected(open, scene.node1)
      const { lost } = await pendingReader(scene, open, scene.node1)
      const before = open.links()
      await scene.network.relink(open.node)
      await eventually('the listener is notified', () => open.links() > before)
      await lost
      await scene.connected(open, scene.node1)
      assert.equal(open.mesh.state, 'connected')
    }),
}

export const closeCases: Record<string, MeshCase> = {
  'ends everything, and is idempotent': async (scene) => {
    const { node2 } = scene
    const open = await scene.open('closing')
    const { mesh } = open
    await scene.connected(open, node2)
    const table = await scene.newStream(1, open)
    const { lost } = await pendingReader(scene, open, node2)
    await Promise.all([mesh.close(), mesh.close()])
    await mesh.close()
    await lost
    assert.equal(mesh.state, 'stopped')
    assert.deepEqual(open.states, ['connecting', 'connected', 'stopped'])
    const disconnected = meshError('disconnected')
    await assert.rejects(mesh.request('node1', bytes('?'), withTimeout), disconnected)
    await assert.rejects(mesh.ensureStream(table, ''), disconnected)
    await assert.rejects(append(mesh, table, message('x'), { sequence: 1 }), disconnected)
    mesh.announce(bytes('lost'))
    await eventually('the closed node does not respond', () =>
      node2.mesh.request(open.node, bytes('?'), { timeout: PROBE_TIMEOUT_MS }).then(
        () => false,
        (error) => error.code === 'no_responders',
      ),
    )
  },
  'calls done of every append in flight once': async (scene) => {
    const { mesh, ...open } = await scene.open('closing-in-flight')
    const table = await scene.newStream(0, { mesh, ...open })
    const calls: number[] = range(0, 49).map(() => 0)
    for (const sequence of calls.keys()) mesh.append(table, message('x'), { sequence }, () => calls[sequence]!++)
    await mesh.close()
    await delay(50)
    assert.deepEqual(new Set(calls), new Set([1]))
  },
  'allows the mesh to be opened again, also under another name meanwhile by an observer': async (scene) => {
    const open = await scene.open('opened-again')
    const { mesh, node } = open
    const table = await scene.newStream(1, open)
    mesh.listen(() => assert.fail('a listener of the time before'))
    await mesh.close()
    const silent = { state() {}, rejected() {}, linked() {} }
    const observer = mesh.observer?.()
    await observer?.open(`${node}-observer`, { hub: [], leaf: [] }, silent)
    await observer?.close()
    await mesh.open(node, { hub: [], leaf: [] }, silent)
    try {
      assert.equal((await mesh.ensureStream(table, '')).lastSequence, 1)
      assert.equal(await append(mesh, table, message('x'), { sequence: 1 }), 2)
      mesh.serve(async (data) => data)
      assert.equal((await mesh.request(node, bytes('?'), withTimeout)).byteLength, 1)
    } finally {
      await mesh.close()
    }
    assert.equal(mesh.state, 'stopped')
    await assert.rejects(append(mesh, table, message('x'), { sequence: 2 }), meshError('disconnected'))
  },
  'keeps the streams for the next mesh of the node, which has another session': async (scene) => {
    const first = await scene.open('reopened')
    const table = await scene.newStream(4, first)
    await first.mesh.describeStream(table, 'kept')
    await first.mesh.purgeStream(table, { before: 3 })
    const before = await scene.state(table, first)
    const { session } = first.mesh
    await first.mesh.close()
    await scene.withNode('reopened', async (second) => {
      assert.notEqual(second.mesh.session, session)
      assert.deepEqual(await second.mesh.ensureStream(table, 'new'), before)
      assert.equal(await append(second.mesh, table, message('x'), { sequence: 4 }), 5)
      await scene.connected(second, scene.node1)
      const reader = await scene.node1.mesh.read(sourceOf(second, table), 1, { ...withTimeout, maxMessages: 10 })
      assert.deepEqual(sequences(await take(reader, 3)), [3, 4, 5])
      reader.close()
    })
  },
}

export const duplicateCases: Record<string, MeshCase> = {
  'both nodes of one name are notified, and no other node': (scene) => {
    const others = () => [scene.node1, scene.node2].map(({ rejectedPeers }) => rejectedPeers.join('\n'))
    // Earlier cases restart nodes several times within a second, which looks like a rejection.
    const before = others()
    return scene.withNode('duplicate', (first) =>
      scene.withNode('duplicate', async (second) => {
        await eventually('both are notified', () => first.rejectedPeers.length > 0 && second.rejectedPeers.length > 0)
        assert.deepEqual(others(), before)
      }),
    )
  },
}
