// A node that restamps and then gets another name: what it voided stays void, whichever name the messages were stored under.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Transaction } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { isVoidedTransaction, withVoids } from '../../lib/replication/voided-transactions.ts'
import { decode, encode, encodeHeaders } from '../../lib/replication/wire.ts'

const EPOCH = 'epoch1'
const source = { node: 'berlin', database: 'dev', table: 'dog' }
const at = (time: number) => makeTimestamp(time, 0, 'node2')
const voids = { node: 'node2', from: at(5_000), to: at(9_000) }

const transactionOf = (id: string, time: number): Transaction => ({
  id,
  timestamp: at(time),
  writes: [{ operation: 'upsert', database: 'dev', table: 'dog', records: [{ id }] }],
})

/** The transaction as a peer reads it from the stream of berlin. `name`: of the node when it stored the message. */
const read = (transaction: Transaction, sequence: number, name: string) =>
  decode(source, {
    sequence,
    headers: encodeHeaders(transaction, name, EPOCH),
    data: encode(transaction, transaction.writes, name),
    delivery: sequence,
    time: 0,
  })

for (const [what, nameOfWrong, nameOfRestamp] of [
  ['both were stored before it', 'node2', 'node2'],
  ['the restamp was in the outbox', 'node2', 'berlin'],
  ['both were in the outbox', 'berlin', 'berlin'],
] as const)
  test(`a transaction of a wrong clock is void after a rename: ${what}`, () => {
    const wrong = read(transactionOf('wrong', 8_000), 1, nameOfWrong)
    const restamp = read({ ...transactionOf('restamp', 1_000), voids }, 2, nameOfRestamp)
    const later = read(transactionOf('later', 8_500), 3, nameOfWrong)
    assert.deepEqual(restamp.voids, voids)
    const voided = withVoids(undefined, restamp, undefined)!
    assert.deepEqual(
      [wrong, later].map((each) => isVoidedTransaction(voided, each)),
      [true, false],
    )
  })

test('a transaction that was stored under another name has a position in the stream', () => {
  const { origin } = read(transactionOf('a', 1_000), 7, 'node2')
  assert.deepEqual(origin, { node: 'node2', relayedBy: [], epoch: EPOCH, index: 7 })
})

test('a relayed transaction whose origin has no epochs has no position', () => {
  const relayed = { ...transactionOf('a', 1_000), origin: { node: 'node3', relayedBy: ['node4'] } }
  assert.deepEqual(read(relayed, 7, 'berlin').origin, { node: 'node3', relayedBy: ['node4'] })
})
