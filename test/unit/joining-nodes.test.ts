// A request to a node that has just joined: its servers are known before everyone knows that it answers requests.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MeshError, type RequestOptions } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { encode } from '../../lib/peers/protocol.ts'
import { MemoryHost } from '../support/memory-host.ts'

const operation = 'describe_all'

/** `refusals`: how often no one answers before the node does. `members`: the names that the network knows. */
function start({ refusals, members }: { refusals: number; members: string[] }) {
  let requests = 0
  const waits: number[] = []
  const mesh = {
    timers: {
      now: Date.now,
      elapsed: () => 0,
      every: () => () => {},
      after: (ms: number, work: () => void) => {
        waits.push(ms)
        queueMicrotask(work)
        return () => {}
      },
    },
    request: async (_node: string, _data: Uint8Array, { signal }: RequestOptions) => {
      if (signal?.aborted) throw new MeshError('aborted')
      if (++requests <= refusals) throw new MeshError('no_responders')
      return encode({ status: 'success', message: {} })
    },
    members: async () => members.map((node) => ({ node, responseTime: 1, connectedNodes: [], routes: [] })),
  }
  const peers = new Peers({ mesh, host: new MemoryHost(), node: 'node1', logger: silentLogger } as never)
  const request = (signal?: AbortSignal) => peers.request('node2', { operation }, { operation, signal })
  return { request, waits, count: () => requests }
}

describe('a request that no one answers', () => {
  it('is repeated while the node joins', async () => {
    const { request, waits, count } = start({ refusals: 3, members: ['node1', 'node2'] })
    assert.deepEqual(await request(), {})
    assert.equal(count(), 4)
    assert.equal(waits.length, 3)
    assert.ok(waits.reduce((sum, ms) => sum + ms, 0) < 500)
  })

  it('fails after half a second when the node is a member and does not answer', async () => {
    const { request, count } = start({ refusals: 100, members: ['node1', 'node2'] })
    await assert.rejects(request(), { code: 'node_not_listening' })
    assert.equal(count(), 4)
  })

  it('fails at once when the node is no member', async () => {
    const { request, waits, count } = start({ refusals: 1, members: ['node1'] })
    await assert.rejects(request(), { code: 'node_not_listening' })
    assert.deepEqual([count(), waits], [1, []])
  })

  it('is not repeated after the caller aborted it', async () => {
    const { request, waits } = start({ refusals: 100, members: ['node2'] })
    const abort = new AbortController()
    const failed = assert.rejects(request(abort.signal), { code: 'aborted' })
    abort.abort()
    await failed
    assert.ok(waits.length <= 1)
  })
})
