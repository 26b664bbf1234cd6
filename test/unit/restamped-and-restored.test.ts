// A node that was restamped after its clock was ahead, and is restored from an older copy later: voided timestamps are no longer the newest ones
// of its running numbers.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { RemoteTable, RemoteTransaction, VoidedRange } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { MemoryHost } from '../support/memory-host.ts'

const at = (time: number) => makeTimestamp(time, 0, 'origin')
const voids: VoidedRange = { node: 'origin', from: makeTimestamp(1_000_000, 0, ''), to: at(2_000_000) }
const relay: RemoteTable = { node: 'relay', database: 'dev', table: 'dog' }

function open() {
  const host = new MemoryHost([['dev', 'dog']])
  const counters = replicationCounters()
  const applier = new Applier({ host, node: 'local', relayEnabled: false, counters, relay() {}, validate() {} })
  let sequence = 0
  const receive = async (...each: { id: string; index: number; time: number; isRestamp?: true }[]) => {
    const transactions = each.map(({ id, index, time, isRestamp }): RemoteTransaction => {
      sequence++
      const origin = { node: 'origin', epoch: 'a', index, relayedBy: ['relay'] }
      const own = { sequence, index: sequence, ...(isRestamp && { voids }) }
      return { id, timestamp: at(time), writes: [], origin, ...own }
    })
    await applier.apply(relay, transactions, { epoch: 'r', sequence, index: sequence })
  }
  return { host, receive }
}

const before = [
  { id: 'old', index: 1, time: 100 },
  { id: 'ahead', index: 2, time: 1_500_000 },
]
const restamp = { id: 'restamp', index: 3, time: 200, isRestamp: true } as const
const lost = { id: 'lost', index: 4, time: 300 }
const reused = { id: 'new', index: 4, time: 400 }

it('what it commits then is applied', async () => {
  const { host, receive } = open()
  await receive(...before)
  await receive(restamp)
  await receive(lost)
  await receive(reused)
  assert.deepEqual(host.applied, ['old', 'ahead', 'restamp', 'lost', 'new'])
})

it('what it commits then is applied when all came in one batch before', async () => {
  const { host, receive } = open()
  await receive(...before, restamp, lost)
  await receive(reused)
  assert.ok(host.applied.includes('new'))
})

it('what it commits then is applied after everything before has arrived twice', async () => {
  const { host, receive } = open()
  await receive(...before, restamp, lost)
  await receive(...before)
  await receive(restamp, lost)
  await receive(reused)
  assert.ok(host.applied.includes('new'))
})

it('transactions that arrive again are not applied again', async () => {
  const { host, receive } = open()
  await receive(...before, restamp, lost)
  await receive(...before, restamp, lost)
  assert.deepEqual(host.applied, ['old', 'ahead', 'restamp', 'lost'])
})
