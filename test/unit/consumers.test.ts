// The owner of a stream creates its consumers on request, in a bounded number; requests and answers are validated.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MeshError } from '../../lib/mesh/mesh.ts'
import { Consumers } from '../../lib/mesh/nats/consumers.ts'
import { JetStream } from '../../lib/mesh/nats/jetstream.ts'
import { serve } from '../../lib/mesh/nats/request-handler.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'

const options = { timeout: 1_000 }
const source = { node: 'node2', database: 'dev', table: 'dog' }
const text = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))

/** node1, the server of its streams, and the mesh. */
function start(consumers = 0) {
  const store = new ScriptedConnection()
  const mesh = new ScriptedConnection()
  const created: Record<string, unknown>[] = []
  store.serve = (subject, body) => {
    if (subject.endsWith('.INFO')) return { consumers }
    created.push(body.config as Record<string, unknown>)
    return { name: 'c1', delivered: { stream_seq: 4 }, num_pending: 1 }
  }
  const connection = (node: string) => (node === 'node1' ? store : mesh).connection
  const made = new Consumers({
    node: () => 'node1',
    jetStream: new JetStream(connection),
    mesh: () => mesh.connection,
  })
  made.serve(silentLogger)
  const asked = (request: unknown) =>
    new Promise<Record<string, unknown>>((resolve) => {
      const respond = (data?: unknown) => {
        resolve(JSON.parse(String(data)) as Record<string, unknown>)
        return true
      }
      mesh.deliver('enmesh.consumer.node1', { data: text(request), respond })
    })
  return { consumers: made, store, mesh, created, asked }
}

const dog = { database: 'dev', table: 'dog' }

describe('consumer of a local stream', () => {
  it('is created on request from a sequence or a time, as a pull consumer', async () => {
    const { asked, created } = start()
    assert.deepEqual(await asked({ ...dog, start: { sequence: 5 } }), { name: 'c1', before: 4 })
    assert.deepEqual(await asked({ ...dog, start: { time: 0 } }), { name: 'c1', before: 4 })
    const [first, second] = created
    assert.deepEqual([first?.deliver_policy, first?.opt_start_seq], ['by_start_sequence', 5])
    assert.deepEqual([second?.deliver_policy, second?.opt_start_time], ['by_start_time', '1970-01-01T00:00:00.000Z'])
    for (const config of created) assert.equal('deliver_subject' in config, false)
  })

  it('ignores other properties of the request', async () => {
    const { asked, created } = start()
    const config = { deliver_subject: 'txn.dev.dog.node1-leaf', durable_name: 'x', ack_policy: 'explicit' }
    await asked({ ...dog, ...config, config, start: { sequence: 5, ...config } })
    const { deliver_subject, durable_name, ack_policy } = created[0]!
    assert.deepEqual([deliver_subject, durable_name, ack_policy], [undefined, undefined, 'none'])
  })

  it('is not created for an invalid request or beyond the limit', async () => {
    const { asked, created } = start()
    const requests = [
      '',
      'no JSON',
      null,
      [],
      7,
      {},
      dog,
      { ...dog, start: null },
      { ...dog, start: {} },
      { ...dog, start: { sequence: 0 } },
      { ...dog, start: { sequence: 1.5 } },
      { ...dog, start: { sequence: '5' } },
      { ...dog, start: { time: 1e99 } },
      { ...dog, start: { time: null } },
      { ...dog, table: '', start: { sequence: 1 } },
      { ...dog, table: ['dog'], start: { sequence: 1 } },
      { ...dog, table: 'd'.repeat(100_000), start: { sequence: 1 } },
    ]
    for (const request of requests) assert.equal((await asked(request)).error, 'rejected', JSON.stringify(request))
    assert.deepEqual(created, [])
    // One more is allowed; concurrent requests do not exceed the limit.
    const crowded = start(19_999)
    const all = Array.from({ length: 200 }, () => crowded.asked({ ...dog, start: { sequence: 1 } }))
    const answers = await Promise.all(all)
    assert.equal(crowded.created.length, 1)
    assert.equal(answers.filter(({ name }) => name === 'c1').length, 1)
    assert.equal(answers.filter(({ reason }) => /20000 consumers/.test(String(reason))).length, 199)
  })
})

describe('consumer of a remote stream', () => {
  it('is requested from the remote node', async () => {
    const { consumers, mesh } = start()
    const asked: unknown[] = []
    mesh.serve = (subject, body) => {
      asked.push([subject, body])
      return { name: 'far', before: 6 }
    }
    assert.deepEqual(await consumers.create(source, { sequence: 7 }, options), { name: 'far', before: 6 })
    assert.deepEqual(asked, [['enmesh.consumer.node2', { ...dog, start: { sequence: 7 } }]])
  })

  it('is created directly when the node does not answer such requests, as HarperDB', async () => {
    const { consumers, mesh } = start()
    mesh.serve = (subject) => {
      if (subject.startsWith('enmesh.')) throw new MeshError('no_responders')
      assert.match(subject, /^\$JS\.node2-leaf\.API\.CONSUMER\.CREATE\./)
      return { name: 'plain', delivered: { stream_seq: 0 }, num_pending: 1 }
    }
    assert.deepEqual(await consumers.create(source, { sequence: 1 }, options), { name: 'plain', before: 0 })
  })

  it('rejects when the stream is missing or the answer is invalid', async () => {
    const { consumers, mesh } = start()
    const create = () => consumers.create(source, { sequence: 1 }, options)
    mesh.serve = () => ({ error: 'not_found', reason: 'stream not found' })
    await assert.rejects(create(), { code: 'not_found', message: 'stream not found' })
    for (const answer of [
      { error: '__proto__', reason: {} },
      {},
      [],
      { name: 'a.b', before: 0 },
      { name: '', before: 0 },
      { name: 'a', before: '0' },
      { name: 'a', before: Number.NaN },
    ]) {
      mesh.serve = () => answer
      await assert.rejects(create(), { code: 'rejected' }, JSON.stringify(answer))
    }
    mesh.serve = () => {
      throw new MeshError('timeout')
    }
    await assert.rejects(create(), { code: 'timeout' })
  })
})

describe('flood of requests', () => {
  it('is answered within the limits of requests and bytes, later requests after earlier ones', async () => {
    const server = new ScriptedConnection()
    const open: ((answer: string) => void)[] = []
    const answers: unknown[] = []
    serve({
      connection: server.connection,
      subject: 'asked',
      handler: () => new Promise((resolve) => open.push(resolve)),
      limits: { requests: 3, bytes: 100 },
      logger: silentLogger,
    })
    const ask = (bytes: number) => {
      const respond = (data?: unknown) => {
        answers.push(data)
        return true
      }
      server.deliver('asked', { data: Buffer.alloc(bytes), respond })
    }
    for (let request = 0; request < 1_000; request++) ask(1)
    assert.equal(open.length, 3)
    open[0]!('done')
    await new Promise((resolve) => setImmediate(resolve))
    assert.deepEqual(answers, ['done'])
    ask(99)
    assert.equal(open.length, 3)
    ask(98)
    assert.equal(open.length, 4)
  })
})
