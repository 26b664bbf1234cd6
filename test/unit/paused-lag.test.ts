// How long a paused subscription is behind: since its source stored the oldest transaction that is not applied, also after a restart.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Checkpoint } from '../../lib/index.ts'
import { MeshError, type StreamState } from '../../lib/mesh/mesh.ts'
import { formatStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { Lag } from '../../lib/replication/subscribe/lag.ts'
import { observeLag } from '../../lib/replication/subscribe/lag-requests.ts'
import type { RemoteStreams } from '../../lib/replication/subscribe/node-gates.ts'
import { eventually, TestClock } from '../../lib/testing.ts'
import { dog, lagPair } from '../support/lag-pair.ts'

const source = { node: 'node1', ...dog }
const START = 1_700_000_000_000

it('the lag of a paused subscription counts from when the source stored its next transaction', {
  timeout: 60_000,
}, async (test) => {
  const { clock, cluster, one, two } = await lagPair(test)
  await one.host.insert('dev', 'dog', { id: 'applied too' })
  await cluster.converged()
  await clock.advance(60_000)
  await two.cluster.pause(source)
  await one.host.insert('dev', 'dog', { id: 'not applied' })
  await clock.advance(60_000)
  await two.stop()
  await two.start()
  const restarted = clock.elapsed()
  const statusOf = () => two.cluster.subscriptions()[0]!
  await eventually(
    () => `a lag of a minute: ${JSON.stringify(statusOf())}`,
    async () => {
      await clock.advance(500)
      const { lag, lagSeconds, state } = statusOf()
      return state === 'paused' && lag === 1 && lagSeconds >= 60 && lagSeconds < 100
    },
  )
  assert.ok(clock.elapsed() - restarted < 30_000)
})

describe('a subscription that reads nothing', () => {
  const position = { epoch: 'e', sequence: 3 } as Checkpoint

  function late(state: Partial<StreamState>, checkpoint = position) {
    const clock = new TestClock({ start: START, stopped: true })
    const lag = new Lag(clock)
    const asked: number[] = []
    const description = formatStreamMetadata(dog, { epochs: [{ epoch: 'e', from: 0 }], purged: [] })
    const mesh = {
      streamState: async () => ({ description, firstSequence: 1, lastSequence: 5, ...state }),
      messageAt: async (_: unknown, sequence: number) => {
        asked.push(sequence)
        return { time: START - 60_000 + sequence, sequence, headers: {}, data: new Uint8Array() }
      },
    } as unknown as RemoteStreams
    const observe = async () => {
      await observeLag({ mesh, requestTimeout: 1_000 }, { source, cursor: { checkpoint }, lag })
      return [lag.count(checkpoint), lag.seconds(checkpoint)]
    }
    return { observe, asked, mesh }
  }

  it('asks how much its stream has, and how old the oldest message is that is not applied', async () => {
    const { observe, asked } = late({})
    assert.deepEqual(
      [await observe(), asked],
      [
        [2, 59.996],
        [4, 5],
      ],
    )
  })

  it('takes the first message left if that one is gone', async () => {
    assert.deepEqual(await late({ firstSequence: 5 }).observe(), [2, 59.995])
  })

  it('asks nothing more if it has everything, or another epoch', async () => {
    for (const { observe, asked } of [late({ lastSequence: 3 }), late({}, { ...position, epoch: 'd' })])
      assert.deepEqual([await observe(), asked], [[0, 0], []])
  })

  it('of a node of HarperDB asks nothing before it is known where it begins', async () => {
    const harper = { description: '', lastSequence: 5 }
    const { observe, asked } = late(harper, { epoch: '', sequence: 0 })
    assert.deepEqual([await observe(), asked], [[0, 0], []])
    const [lag] = await late(harper, { epoch: '', sequence: 3, index: 3 }).observe()
    assert.equal(lag, 2)
  })

  it('shows nothing false while the source does not answer', async () => {
    const { observe, mesh } = late({})
    mesh.streamState = () => Promise.reject(new MeshError('timeout'))
    assert.deepEqual(await observe(), [0, 0])
  })
})
