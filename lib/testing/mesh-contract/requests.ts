// The mesh contract: requests and announcements between nodes.

import assert from 'node:assert/strict'
import { delay } from '../../util/timers.ts'
import { eventually } from '../eventually.ts'
import {
  aborted,
  bytes,
  type MeshCase,
  type MeshScene,
  meshError,
  PROBE_TIMEOUT_MS,
  range,
  sourceOf,
  TIMEOUT_MS,
  textOf,
  withTimeout,
} from './scene.ts'

/** Resolves when a request to a new node with this handler rejects with timeout. */
const expectTimeout = (scene: MeshScene, node: string, handler: () => Promise<Uint8Array>): Promise<void> =>
  scene.withNode(node, async (open) => {
    await scene.connected(scene.node1, open)
    open.mesh.serve(handler)
    // The previous handler may still answer the first requests.
    await eventually(`a request to ${node} times out`, () =>
      scene.node1.mesh.request(node, bytes('?'), { timeout: 100 }).then(
        () => false,
        (error) => meshError('timeout')(error),
      ),
    )
  })

export const requestCases: Record<string, MeshCase> = {
  'delivers the question and the answer with all their bytes': async ({ node1 }) => {
    const question = Uint8Array.from(range(0, 255))
    const answer = await node1.mesh.request('node2', question, withTimeout)
    assert.deepEqual([...answer], [...question])
  },
  'a node can ask itself': async ({ node1 }) => {
    assert.equal(textOf(await node1.mesh.request('node1', bytes('self'), withTimeout)), 'self')
  },
  'concurrent requests each get their own answer': async ({ node1 }) => {
    const questions = range(1, 50).map(String)
    const answers = await Promise.all(
      questions.map(async (each) => textOf(await node1.mesh.request('node2', bytes(each), withTimeout))),
    )
    assert.deepEqual(answers, questions)
  },
  'rejects no_responders for an unknown node': async ({ node1 }) => {
    await assert.rejects(node1.mesh.request('unknown', bytes('?'), withTimeout), meshError('no_responders'))
  },
  'rejects no_responders for a node that does not serve': (scene) =>
    scene.withNode('mute', async (mute) => {
      const { mesh } = scene.node1
      await eventually('the streams of the mute node are visible', () =>
        mesh.streamState(sourceOf(mute, scene.newTable()), { timeout: PROBE_TIMEOUT_MS }).then(
          () => true,
          () => false,
        ),
      )
      await assert.rejects(mesh.request('mute', bytes('?'), withTimeout), meshError('no_responders'))
    }),
  'rejects timeout without an answer': (scene) => expectTimeout(scene, 'slow', () => new Promise(() => {})),
  'rejects timeout when the handler fails': (scene) =>
    expectTimeout(scene, 'broken', () => Promise.reject(new Error('cannot answer'))),
  'rejects aborted at once when the signal was aborted before': async ({ node1 }) => {
    await assert.rejects(node1.mesh.request('node2', bytes('?'), aborted()), meshError('aborted'))
  },
  'rejects aborted when the signal aborts a pending request': (scene) =>
    scene.withNode('stuck', async (stuck) => {
      const { node1 } = scene
      const abortController = new AbortController()
      await scene.connected(node1, stuck)
      let onRequest = () => {}
      const received = new Promise<void>((resolve) => {
        onRequest = resolve
      })
      stuck.mesh.serve(() => {
        onRequest()
        return new Promise(() => {})
      })
      const { signal } = abortController
      let request: Promise<Uint8Array> | undefined
      // The previous handler may still answer the first requests, and the network may lose one.
      await eventually('the new handler has a request', () => {
        request = node1.mesh.request('stuck', bytes('?'), { timeout: TIMEOUT_MS, signal })
        const noResult = request.then(
          () => false,
          () => false,
        )
        return Promise.race([received.then(() => true), noResult, delay(PROBE_TIMEOUT_MS, false)])
      })
      abortController.abort()
      await assert.rejects(request!, meshError('aborted'))
    }),
}

export const announceCases: Record<string, MeshCase> = {
  'reaches every node in order, the sender included': async ({ node1, node2 }) => {
    const received: string[][] = [[], []]
    for (const [index, { mesh }] of [node1, node2].entries()) mesh.listen((data) => received[index]!.push(textOf(data)))
    // The interest of a new listener takes time to reach the other nodes.
    await eventually('both nodes receive announcements', () => {
      node1.mesh.announce(bytes('probe'))
      return received.every((each) => each.length > 0)
    })
    const sent = range(1, 20).map((each) => `announcement ${each}`)
    for (const each of sent) node1.mesh.announce(bytes(each))
    for (const each of received) {
      const announcements = () => each.filter((item) => item !== 'probe')
      await eventually('all announcements are received', () => announcements().length >= sent.length)
      assert.deepEqual(announcements(), sent)
    }
  },
}
