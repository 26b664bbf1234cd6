// The appender sends expected positions with each message, and calls each callback once: on an acknowledgement or a time-out.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { Appender } from '../../lib/mesh/nats/appender.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }
const message = { data: Buffer.from('data'), headers: { 'Nats-Msg-Id': 'a', epoch: 'e1' } }

function start(test: TestContext) {
  const server = new ScriptedConnection()
  const appender = new Appender(server.connection, 'node1')
  test.after(() => appender.close())
  const answers: string[] = []
  const append = (name: string, table = dog, expected: { sequence: number; id?: string } = { sequence: 0 }) =>
    appender.append(
      table,
      message,
      expected,
      (error, sequence) => void answers.push(`${name} ${error?.code ?? sequence}`),
    )
  /** Acknowledges the message with this index. */
  const acknowledge = (index: number, body: object) =>
    server.deliver(server.sent[index]!.reply, { data: Buffer.from(JSON.stringify(body)) })
  return { server, appender, answers, append, acknowledge }
}

describe('append', () => {
  it('sends the expected last sequence and id', (test) => {
    const { server, append } = start(test)
    append('one', dog, { sequence: 7 })
    append('two', dog, { sequence: 8, id: 'a' })
    assert.deepEqual(
      server.sent.map(({ subject, data, headers }) => [subject, data, headers]),
      [
        ['txn.dev.dog.node1-leaf', 'data', { ...message.headers, 'Nats-Expected-Last-Sequence': '7' }],
        [
          'txn.dev.dog.node1-leaf',
          'data',
          { ...message.headers, 'Nats-Expected-Last-Sequence': '8', 'Nats-Expected-Last-Msg-Id': 'a' },
        ],
      ],
    )
  })

  it('receives all acknowledgements on one inbox, each once', (test) => {
    const { server, answers, append, acknowledge } = start(test)
    for (const name of ['one', 'two', 'three', 'four', 'five']) append(name)
    assert.equal(new Set(server.sent.map(({ reply }) => reply)).size, 5)
    assert.equal(server.subscriptions.length, 1)
    acknowledge(1, { stream: 's', seq: 2 })
    acknowledge(0, { stream: 's', seq: 1 })
    acknowledge(0, { stream: 's', seq: 1 })
    acknowledge(2, { error: { code: 400, err_code: 10071, description: 'wrong last sequence: 2' } })
    acknowledge(3, { error: { code: 400, err_code: 10070, description: 'wrong last msg ID: x' } })
    server.deliver(server.sent[4]!.reply, { status: [503, 'No Responders'] })
    assert.deepEqual(answers, ['two 2', 'one 1', 'three wrong_sequence', 'four wrong_sequence', 'five not_found'])
  })

  it('reads the sequence from acknowledgements of any form', (test) => {
    const { server, answers, append } = start(test)
    const bodies = [
      '{"stream":"s","seq":1234567}',
      '{"stream":"s", "domain":"a-leaf", "seq":8}',
      '{"stream":"s","seq":9,"duplicate":true}',
      '{"error":{"code":400,"err_code":10071},"seq":5}',
      '{"stream":"s","sequence":}',
      '6}',
      '',
    ]
    for (const [index, body] of bodies.entries()) {
      append(`${index}`)
      server.deliver(server.sent[index]!.reply, { data: Buffer.from(body) })
    }
    const desired = [
      '0 1234567',
      '1 8',
      '2 wrong_sequence',
      '3 wrong_sequence',
      '4 rejected',
      '5 rejected',
      '6 rejected',
    ]
    assert.deepEqual(answers, desired)
  })

  it('calls back asynchronously when sending fails', async (test) => {
    const { server, answers, append } = start(test)
    server.refusal = new MeshError('disconnected')
    append('one')
    assert.deepEqual(answers, [])
    await undefined
    assert.deepEqual(answers, ['one disconnected'])
  })

  it('fails after a time-out without an answer, with all later messages', (test) => {
    fakeSystemTimers(test, 'setInterval')
    const { answers, append, acknowledge } = start(test)
    append('one')
    test.mock.timers.tick(3_000)
    append('two')
    test.mock.timers.tick(1_999)
    assert.deepEqual(answers, [])
    test.mock.timers.tick(2_000)
    assert.deepEqual(answers, ['one timeout', 'two timeout'])
    acknowledge(1, { seq: 2 })
    assert.equal(answers.length, 2)
  })

  it('fails once when the connection is lost', (test) => {
    const { appender, answers, append, acknowledge } = start(test)
    append('one')
    append('two')
    appender.fail(new MeshError('disconnected'))
    appender.fail(new MeshError('disconnected'))
    acknowledge(0, { seq: 1 })
    assert.deepEqual(answers, ['one disconnected', 'two disconnected'])
  })
})

describe('the table for health checks', () => {
  it('is a written table, preferably one with a pending answer', (test) => {
    const { appender, append, acknowledge } = start(test)
    assert.equal(appender.writtenTable, undefined)
    append('one')
    append('two', cat)
    assert.deepEqual(appender.writtenTable, dog)
    acknowledge(0, { seq: 1 })
    assert.deepEqual(appender.writtenTable, cat)
    acknowledge(1, { seq: 1 })
    assert.deepEqual(appender.writtenTable, cat)
    // Failed without an answer: preferred until the next answer.
    append('three')
    appender.fail(new MeshError('timeout'))
    append('four', cat)
    acknowledge(3, { seq: 2 })
    assert.deepEqual(appender.writtenTable, dog)
    append('five')
    acknowledge(4, { seq: 2 })
    append('six', cat)
    assert.deepEqual(appender.writtenTable, cat)
  })
})
