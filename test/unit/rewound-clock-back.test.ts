// Stream and database of a source were restored together, and its clock went back: a direct subscriber applies what it commits then.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { RemoteTable, RemoteTransaction } from '../../lib/host/host.ts'
import { makeTimestamp, wallTimeOf } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { MemoryHost } from '../support/memory-host.ts'

const source: RemoteTable = { node: 'origin', database: 'dev', table: 'dog' }

it('also with more transactions than its stream had when that was noticed', async () => {
  const host = new MemoryHost([['dev', 'dog']])
  const counters = replicationCounters()
  const relayed: (number | undefined)[] = []
  const applier = new Applier({
    host,
    node: 'local',
    relayEnabled: true,
    counters,
    relay: (transactions) => void relayed.push(...transactions.map(({ timestamp }) => wallTimeOf(timestamp))),
    validate() {},
  })
  const receive = async (id: string, index: number, time: number, sequence: number, replayUntil?: number) => {
    const timestamp = makeTimestamp(time, 0, 'origin')
    const origin = { node: 'origin', epoch: 'a', index, relayedBy: [] }
    const transaction: RemoteTransaction = { id, timestamp, writes: [], origin, sequence, index }
    const replay = replayUntil === undefined ? {} : { replayUntil }
    await applier.apply(source, [transaction], { epoch: 'a', sequence, index, lastId: id, ...replay })
  }
  await receive('old', 1, 100, 1)
  // Three transactions in one message.
  await receive('lost 1', 2, 1_001, 2)
  await receive('lost 2', 3, 1_002, 2)
  await receive('lost 3', 4, 1_003, 2)
  await applier.move(source, { epoch: 'a', sequence: 0, index: 0, replayUntil: 2 }, { newGaps: 1 })
  await receive('old', 1, 100, 1, 2)
  await receive('new 1', 2, 201, 2, 2)
  await receive('new 2', 3, 202, 3, 2)
  await receive('new 3', 4, 203, 4, 2)
  await receive('new 4', 5, 204, 5, 2)
  assert.deepEqual(host.applied.slice(4), ['old', 'new 1', 'new 2', 'new 3', 'new 4'])
  assert.deepEqual(relayed.slice(4), [202, 203, 204])
})
