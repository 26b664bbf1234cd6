// The pull reader requests no more messages than its capacity, and fails when its consumer is gone.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { headers } from 'nats'
import type { Headers, ReadOptions } from '../../lib/mesh/mesh.ts'
import { HeaderReader } from '../../lib/mesh/nats/header-reader.ts'
import { JetStream } from '../../lib/mesh/nats/jetstream.ts'
import { PullReader } from '../../lib/mesh/nats/pull-reader.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { nextTurn } from '../../lib/util/timers.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'

const source = { node: 'node2', database: 'dev', table: 'dog' }
/** A delivered message keeps the subject of its stream. */
const subject = 'txn.dev.dog.node2-leaf'

async function start(test: TestContext, maxMessages = 10, more: Partial<ReadOptions> = {}) {
  const server = new ScriptedConnection()
  const called: string[] = []
  const created: Record<string, unknown>[] = []
  server.serve = (subject, body) => {
    const [, verb] = /API\.(\w+\.\w+)/.exec(subject)!
    called.push(verb!)
    if (verb === 'CONSUMER.CREATE') created.push(body.config as Record<string, unknown>)
    return { name: 'c1', delivered: { stream_seq: 4 }, num_pending: 1 }
  }
  const closed: PullReader[] = []
  const options = { timeout: 1_000, maxMessages, ...more }
  const { connection } = server
  const jetStream = new JetStream(() => connection)
  const consumers = { create: jetStream.createConsumer.bind(jetStream) }
  const reader = await PullReader.open(
    { connection, jetStream, consumers, headers: new HeaderReader(silentLogger) },
    source,
    5,
    options,
    (reader) => void closed.push(reader),
  )
  test.after(() => reader.close())
  const [inbox] = server.subscriptions
  let delivery = 0
  /** Delivers messages of these sequences; a domain's subject is longer. */
  const deliver = (sequences: number[], domain = false) => {
    for (const sequence of sequences) {
      const names = domain ? 'node2-leaf.ACC.s.c1' : 's.c1'
      const reply = `$JS.ACK.${names}.1.${sequence}.${++delivery}.1700000000000000000.0${domain ? '.token' : ''}`
      server.deliver(inbox!, { subject, reply, data: Buffer.from(`${sequence}`) })
    }
  }
  const status = (code: number, description: string, more: Headers = {}) =>
    server.deliver(inbox!, { status: [code, description, more] })
  type Pull = { batch: number; max_bytes: number; idle_heartbeat?: number }
  const pulls = () => server.sent.map(({ data }) => JSON.parse(data) as Pull)
  const batches = () => pulls().map(({ batch }) => batch)
  return { server, reader, called, created, closed, deliver, status, pulls, batches }
}

const unanswered = (count: number): Headers => ({ 'Nats-Pending-Messages': `${count}`, 'Nats-Pending-Bytes': '0' })

describe('pull reader', () => {
  it('creates a consumer without acknowledgements at the start sequence', async (test) => {
    const { called, created, server } = await start(test)
    assert.deepEqual(called, ['CONSUMER.CREATE'])
    const { opt_start_seq, deliver_policy, ack_policy } = created[0]!
    assert.deepEqual([opt_start_seq, deliver_policy, ack_policy], [5, 'by_start_sequence', 'none'])
    assert.match(server.sent[0]!.subject, /^\$JS\.node2-leaf\.API\.CONSUMER\.MSG\.NEXT\.[0-9a-f]{32}\.c1$/)
  })

  it('requests messages when half of its capacity is free', async (test) => {
    const { reader, deliver, batches, pulls } = await start(test)
    assert.deepEqual(batches(), [10])
    assert.ok(pulls()[0]!.max_bytes <= 4 * 1024 * 1024)
    deliver([5, 6, 7, 8])
    assert.equal((await reader.next()).length, 4)
    assert.deepEqual(batches(), [10])
    deliver([9, 10, 11, 12, 13, 14])
    assert.deepEqual(batches(), [10], 'no entry was taken')
    assert.equal((await reader.next()).length, 6)
    assert.deepEqual(batches(), [10, 10])
    deliver([15, 16, 17, 18, 19, 20])
    await reader.next()
    assert.deepEqual(batches(), [10, 10, 6])
  })

  it('returns the sequence, delivery number and time of each message', async (test) => {
    const { reader, deliver } = await start(test)
    deliver([5])
    deliver([9], true)
    const places = (await reader.next()).map(({ sequence, delivery, time }) => [sequence, delivery, time])
    assert.deepEqual(places, [
      [5, 1, 1_700_000_000_000],
      [9, 2, 1_700_000_000_000],
    ])
  })

  // As servers of the versions 2.9 to 2.15 send them.
  const endOfRequest: [code: number, description: string][] = [
    [408, 'Request Timeout'],
    [408, 'Interest Expired'],
    [409, 'Message Size Exceeds MaxBytes'],
    [409, 'Batch Completed'],
    [423, 'Nats-Wrong-Pin-Id'],
  ]
  for (const [code, description] of endOfRequest)
    it(`requests pending messages again after the status ${code} ${description}`, async (test) => {
      const { reader, deliver, status, pulls } = await start(test)
      deliver([5, 6])
      await reader.next()
      status(code, description, unanswered(8))
      assert.equal(pulls().length, 2)
      assert.equal(reader.failed, false)
      deliver([7])
      assert.equal((await reader.next()).length, 1)
    })

  it('requests no more than its capacity when a status follows a complete batch', async (test) => {
    const { reader, deliver, status, batches } = await start(test, 2)
    for (const sequence of [5, 7, 9]) {
      deliver([sequence, sequence + 1])
      status(409, 'Batch Completed', unanswered(0))
      assert.equal((await reader.next()).length, 2)
    }
    assert.deepEqual(batches(), [2, 2, 2, 2])
    status(409, 'Batch Completed', unanswered(1_000))
    assert.ok(
      batches().every((batch) => batch <= 2),
      'independent of the count in a status',
    )
  })

  const endOfConsumer: [code: number, description: string][] = [
    [400, 'Bad Request'],
    [404, 'No Messages'],
    [408, 'Requests Pending'],
    [409, 'Consumer Deleted'],
    [409, 'Consumer is push based'],
    [409, 'Exceeded MaxRequestBatch of 5'],
    [409, 'Exceeded MaxWaiting'],
    [409, 'Leadership Change'],
    [423, 'Nats-Pin-Id mismatch'],
    [503, 'No Responders'],
  ]
  for (const [code, description] of endOfConsumer)
    it(`fails with the status ${code} ${description}, which has no count`, async (test) => {
      const { reader, status } = await start(test)
      status(code, description)
      assert.equal(reader.failed, true)
      await assert.rejects(reader.next(), { code: 'reader_lost' })
    })

  it('requests an oversized message alone, and then continues as before', async (test) => {
    const { reader, deliver, status, pulls } = await start(test)
    status(409, 'Message Size Exceeds MaxBytes', unanswered(10))
    const [, large] = pulls()
    assert.equal(large!.batch, 1)
    assert.ok(large!.max_bytes >= 32 * 1024 * 1024)
    deliver([5])
    await reader.next()
    assert.deepEqual(pulls()[2], pulls()[0])
  })

  it('drops unread messages and deletes its consumer when it fails', async (test) => {
    const { server, reader, called, closed, deliver, status } = await start(test)
    deliver([5, 6])
    status(409, 'Consumer Deleted')
    await assert.rejects(reader.next(), { code: 'reader_lost' })
    deliver([7])
    await assert.rejects(reader.next(), { code: 'reader_lost' })
    assert.deepEqual([closed, server.subscriptions], [[reader], []])
    reader.close()
    assert.deepEqual([closed.length, called], [1, ['CONSUMER.CREATE', 'CONSUMER.DELETE']])
  })

  it('ignores headers beyond 64 KiB', async (test) => {
    const { server, reader } = await start(test)
    for (const [delivery, length] of [10, 70_000].entries()) {
      const values = headers()
      values.set('epoch', 'e'.repeat(length))
      const reply = `$JS.ACK.s.c1.1.${5 + delivery}.${delivery + 1}.1700000000000000000.0`
      server.deliver(server.subscriptions[0]!, { subject, reply, data: Buffer.from('data'), headers: values })
    }
    const [short, long] = await reader.next()
    assert.deepEqual([short?.headers, long?.headers], [{ epoch: 'e'.repeat(10) }, {}])
  })

  it('fails on unrequested and forged messages', async (test) => {
    const { server, reader } = await start(test)
    server.deliver(server.subscriptions[0]!, { reply: '$JS.ACK.s.c1.1.5.1.0.0', data: Buffer.from('forged') })
    assert.equal(reader.failed, true, 'sent to the inbox')
    for (const forge of ['more', 'x', '$JS.ACK.s.c1.1.NaN.7.1.0', '$JS.ACK.s.c1.1.5'] as const) {
      const { server, reader, deliver } = await start(test, 2)
      if (forge === 'more') deliver([5, 6, 7])
      else server.deliver(server.subscriptions[0]!, { subject, reply: forge, data: Buffer.from('forged') })
      assert.equal(reader.failed, true, forge)
      await assert.rejects(reader.next(), { code: 'reader_lost' })
    }
  })

  it('rejects a pending next() when it is closed', async (test) => {
    const { reader } = await start(test)
    const waiting = reader.next()
    reader.close()
    await assert.rejects(waiting, { code: 'reader_lost' })
  })

  it('fails when a request is not answered in time', async (test) => {
    fakeSystemTimers(test, 'setTimeout')
    const { reader } = await start(test)
    test.mock.timers.tick(64_000)
    test.mock.timers.tick(999)
    await nextTurn()
    assert.equal(reader.failed, false)
    test.mock.timers.tick(1)
    await nextTurn()
    assert.equal(reader.failed, true)
  })

  it('reads the answers that wait in the socket after a pause of the process, before it fails', async (test) => {
    fakeSystemTimers(test, 'setTimeout')
    const { reader, status } = await start(test, 10, { isSilent: true })
    // A pause until each of the two timers is late, and the answer comes in the next turn, or after some more.
    for (const isLater of [true, false]) {
      test.mock.timers.tick(20_000)
      if (isLater) await nextTurn()
      else test.mock.timers.tick(20_000)
      assert.equal(reader.failed, false)
      status(100, 'Idle Heartbeat')
      await nextTurn()
      assert.equal(reader.failed, false)
    }
    test.mock.timers.tick(10_000)
    test.mock.timers.tick(1_000)
    await nextTurn()
    assert.equal(reader.failed, true)
  })

  it('of a silent source fails soon after the last heartbeat, message or status', async (test) => {
    fakeSystemTimers(test, 'setTimeout')
    const { reader, status, deliver, pulls } = await start(test, 10, { isSilent: true })
    assert.equal(pulls()[0]!.idle_heartbeat, 5e9)
    const tick = (ms: number) => {
      test.mock.timers.tick(10_000)
      test.mock.timers.tick(ms - 10_000)
      return nextTurn()
    }
    for (const answer of [
      () => status(100, 'Idle Heartbeat'),
      () => deliver([5]),
      () => status(408, 'Request Timeout', unanswered(9)),
    ]) {
      await tick(10_999)
      assert.equal(reader.failed, false)
      answer()
    }
    await tick(11_000)
    assert.equal(reader.failed, true)
    const other = await start(test)
    assert.equal(other.pulls()[0]!.idle_heartbeat, undefined)
    other.status(100, 'Idle Heartbeat')
    assert.equal(other.reader.failed, true, 'unasked')
  })

  it('does not fail while no request is open', async (test) => {
    fakeSystemTimers(test, 'setTimeout')
    const { reader, deliver } = await start(test, 2, { isSilent: true })
    deliver([5, 6])
    for (let time = 0; time < 2; time++) test.mock.timers.tick(60_000)
    await nextTurn()
    assert.equal(reader.failed, false)
    assert.equal((await reader.next()).length, 2)
    test.mock.timers.tick(10_000)
    test.mock.timers.tick(1_000)
    await nextTurn()
    assert.equal(reader.failed, true)
  })

  it('fails when it cannot send a request', async (test) => {
    const { server, reader, deliver } = await start(test)
    deliver([5, 6, 7, 8, 9])
    server.refusal = new Error('disconnected')
    await reader.next()
    assert.equal(reader.failed, true)
  })
})
