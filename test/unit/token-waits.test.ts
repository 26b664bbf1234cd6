// Waiting for the transaction of a token, against what sources and relaying nodes answer.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Checkpoint, RemoteTable } from '../../lib/index.ts'
import { MeshError, type StreamState } from '../../lib/mesh/mesh.ts'
import { beginCopy, requestedCopy } from '../../lib/replication/copy/copy-position.ts'
import type { TableStatus } from '../../lib/replication/copy/row-messages.ts'
import { positionOfCheckpoint } from '../../lib/replication/positions/applied-state.ts'
import { TokenWaits, type TokenWaitsOptions } from '../../lib/replication/positions/token-waits.ts'
import { formatStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import { TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const from = (node: string): RemoteTable => ({ node, ...dog })
const part = (epoch: string, index: number) => ({ node: 'origin', timestamp: '', parts: [{ ...dog, epoch, index }] })

function waits({ sources, ...options }: { sources: string[] } & Partial<TokenWaitsOptions>) {
  const clock = new TestClock({ stopped: true })
  const checkpoints = new Map<string, Checkpoint>()
  const created = new TokenWaits({
    node: 'here',
    mesh: { timers: clock, streamState: async () => undefined },
    requestTimeout: 1_000,
    publisher: { endOf: () => undefined, ensure: () => Promise.reject(new MeshError('disconnected')) },
    index: { sourcesOf: () => sources.map(from) },
    checkpoint: ({ node }) => checkpoints.get(node),
    position: ({ node }) => {
      const checkpoint = checkpoints.get(node)
      return checkpoint && positionOfCheckpoint(node, checkpoint, false)
    },
    statusOf: () => Promise.reject(new Error('unexpected')),
    ...options,
  })
  const set = (node: string, checkpoint: Checkpoint) => {
    checkpoints.set(node, checkpoint)
    created.onChange(dog)
  }
  /** What a wait has come to after `ms`. */
  const outcome = async (wait: Promise<void>, ms: number) => {
    let result = 'waiting'
    wait.then(
      () => {
        result = 'applied'
      },
      (error) => {
        result = error.code
      },
    )
    await clock.advance(ms)
    return result
  }
  return { created, clock, set, outcome }
}

const streamOf = (lastSequence: number, ...epochs: { epoch: string; from: number; last?: number }[]): StreamState => ({
  firstSequence: lastSequence + 1,
  lastSequence,
  messages: 0,
  description: formatStreamMetadata(dog, { epochs, purged: [] }),
  created: '',
})
const status = (index: number, { epoch = 'relay', sequence = 5 } = {}): TableStatus => ({
  epoch,
  sequence,
  isPublished: true,
  sources: [{ node: 'origin', state: 'live', epoch: 'one', sequence: 1, index }],
})
const options = { timeout: 10_000 }

describe('a wait for a token', { concurrency: true, timeout: 30_000 }, () => {
  it('does not take a later epoch, of which a relaying node has brought something, for an earlier one', async () => {
    const stream = streamOf(9, { epoch: 'one', from: 1, last: 4 }, { epoch: 'two', from: 5 })
    const mesh = { streamState: async () => stream }
    const clock = new TestClock({ stopped: true })
    const { created, set, outcome } = waits({ sources: ['origin', 'relay'], mesh: { ...mesh, timers: clock } })
    set('origin', { epoch: 'one', sequence: 4, index: 4, applied: { origin: { one: [[1, 4]], two: [[1, 2]] } } })
    set('relay', { epoch: 'relay', sequence: 2, index: 2 })
    const waiting = created.wait(part('two', 3), options)
    await clock.advance(1_000)
    assert.equal(await outcome(waiting, 0), 'waiting')
    set('origin', { epoch: 'two', sequence: 7, index: 3, applied: { origin: { one: [[1, 4]], two: [[1, 3]] } } })
    assert.equal(await outcome(waiting, 0), 'applied')
    await created.wait(part('one', 4), options)
  })

  it('resolves at the end of a stream whose transactions were not counted, but not before a copy has ended', async () => {
    const clock = new TestClock({ stopped: true })
    const mesh = { timers: clock, streamState: async () => streamOf(7, { epoch: 'one', from: 1 }) }
    const { created, set, outcome } = waits({ sources: ['origin'], mesh })
    const copy = { id: 'copy', reason: 'table_empty', rows: 0 } as unknown as NonNullable<Checkpoint['copy']>
    set('origin', { epoch: 'one', sequence: 6 })
    const waiting = created.wait(part('one', 20), options)
    await clock.advance(1_000)
    assert.equal(await outcome(waiting, 0), 'waiting')
    set('origin', { epoch: 'one', sequence: 7, copy })
    await clock.advance(1_000)
    assert.equal(await outcome(waiting, 0), 'waiting')
    set('origin', { epoch: 'one', sequence: 7 })
    assert.equal(await outcome(waiting, 0), 'applied')
  })

  it('does not count what was applied before the table was emptied, until its rows are copied again', async () => {
    const copy = beginCopy(undefined, 'table_replaced')
    const direct = waits({ sources: ['origin'] })
    const known = { epoch: 'one', sequence: 4, index: 4, applied: { origin: { one: [[1, 4]] } } } satisfies Checkpoint
    direct.set('origin', { ...known, copy })
    const waiting = direct.created.wait(part('one', 3), options)
    assert.equal(await direct.outcome(waiting, 1_000), 'waiting')
    direct.set('origin', known)
    assert.equal(await direct.outcome(waiting, 0), 'applied')
    const relay = waits({ sources: ['relay'], statusOf: async () => status(3) })
    relay.set('relay', { ...known, epoch: 'relay', sequence: 5, copy })
    const relayed = relay.created.wait(part('one', 3), options)
    assert.equal(await relay.outcome(relayed, 1_000), 'waiting')
    relay.set('relay', { ...known, epoch: 'relay', sequence: 5 })
    assert.equal(await relay.outcome(relayed, 0), 'applied')
  })

  it('does not count it either when that copy begins again, for a gap or because it is asked for', async () => {
    const emptied = beginCopy(undefined, 'table_replaced')
    for (const copy of [beginCopy(emptied, 'gap'), requestedCopy(emptied), beginCopy(emptied, emptied.reason)]) {
      const { created, set, outcome } = waits({ sources: ['origin'] })
      const known = { epoch: 'one', sequence: 4, index: 4, applied: { origin: { one: [[1, 4]] } } } satisfies Checkpoint
      set('origin', { ...known, copy })
      const waiting = created.wait(part('one', 3), options)
      assert.equal(await outcome(waiting, 1_000), 'waiting', copy.reason)
      set('origin', known)
      assert.equal(await outcome(waiting, 0), 'applied')
    }
  })

  it('goes on by a new stream of a relaying node', async () => {
    let answer = status(3)
    const { created, set, outcome } = waits({ sources: ['relay'], statusOf: async () => answer })
    set('relay', { epoch: 'relay', sequence: 1 })
    const waiting = created.wait(part('one', 3), options)
    assert.equal(await outcome(waiting, 1_000), 'waiting')
    answer = status(3, { epoch: 'new', sequence: 2 })
    set('relay', { epoch: 'new', sequence: 2 })
    assert.equal(await outcome(waiting, 1_000), 'applied')
  })

  it('does not wait for a relaying node that does not answer, and asks each one once for all that wait', async () => {
    let [open, most] = [0, 0]
    const silent = new Promise<TableStatus>(() => {})
    const { created, clock, set, outcome } = waits({
      sources: ['silent', 'relay'],
      statusOf: async ({ node }) => {
        if (node === 'silent') return silent
        most = Math.max(most, ++open)
        await new Promise<void>((resolve) => clock.after(100, resolve))
        open--
        return status(clock.elapsed() > 1_000 ? 3 : 2)
      },
    })
    set('relay', { epoch: 'relay', sequence: 5 })
    const all = Promise.all(Array.from({ length: 50 }, () => created.wait(part('one', 3), options)))
    assert.equal(await outcome(all as Promise<unknown> as Promise<void>, 2_000), 'applied')
    assert.equal(most, 1)
  })

  it('for an own transaction needs no server', async () => {
    const end = { epoch: 'one', sequence: 3, index: 3 }
    const ensure = () => Promise.reject(new MeshError('disconnected'))
    const { created } = waits({ sources: [], publisher: { endOf: () => end, ensure } })
    await created.wait({ ...part('one', 3), node: 'here' }, options)
    await assert.rejects(created.wait({ ...part('two', 3), node: 'here' }, options), { code: 'token_expired' })
  })
})

describe('a relaying node that does not know the running number of the transaction', () => {
  const uncounted = (relayedSequence: number): TableStatus => ({
    epoch: 'relay',
    sequence: 5,
    isPublished: true,
    sources: [{ node: 'origin', state: 'live', epoch: 'one', sequence: relayedSequence, relayedSequence }],
  })

  it('counts when it has passed the end that the stream of the origin had, and not before', async () => {
    for (const [relayedSequence, expected] of [
      [8, 'waiting'],
      [9, 'applied'],
    ] as const) {
      const clock = new TestClock({ stopped: true })
      const mesh = { timers: clock, streamState: async () => streamOf(9, { epoch: 'one', from: 1 }) }
      const { created, set } = waits({ sources: ['relay'], mesh, statusOf: async () => uncounted(relayedSequence) })
      set('relay', { epoch: 'relay', sequence: 5 })
      let result = 'waiting'
      created.wait(part('one', 20), options).then(
        () => {
          result = 'applied'
        },
        () => {},
      )
      await clock.advance(1_000)
      assert.equal(result, expected)
    }
  })
})
