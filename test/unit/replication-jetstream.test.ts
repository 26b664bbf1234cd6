// JetStream API calls: serialized configuration changes, and answers as mesh errors.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { JetStream, streamName } from '../../lib/mesh/nats/jetstream.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }
const options = { timeout: 1_000 }
const name = streamName(source)
const missing = { error: { code: 404, err_code: 10059, description: 'stream not found' } }

type Config = Record<string, unknown>

/** A server with at most one stream; answers are asynchronous. */
function start(config?: Config, state = { messages: 0, first_seq: 0, last_seq: 0 }) {
  const server = new ScriptedConnection()
  const verbs: string[] = []
  let stream = config && { config: { name, ...config }, created: 'then', state }
  server.serve = async (subject, body) => {
    const [, verb] = /API\.STREAM\.(\w+)/.exec(subject)!
    verbs.push(verb!)
    await new Promise((resolve) => setImmediate(resolve))
    if (verb === 'CREATE' || verb === 'UPDATE')
      stream = { config: body as Config & { name: string }, created: 'then', state }
    return stream ?? missing
  }
  return {
    jetStream: new JetStream(() => server.connection),
    verbs,
    config: () => stream?.config as Config | undefined,
  }
}

describe('stream', () => {
  it('is created with the shortest deduplication window', async () => {
    const { jetStream, config } = start()
    await jetStream.ensureStream(source, 'label', {}, options)
    assert.equal(config()?.duplicate_window, 100_000_000)
    assert.deepEqual(config()?.subjects, ['txn.dev.dog.node1-leaf'])
  })

  it('corrects subject and limits of an existing stream and keeps its other settings', async () => {
    const { jetStream, config } = start({
      description: 'old',
      subjects: ['txn.dev.dog.node1-leaf'],
      discard: 'old',
      duplicate_window: 120e9,
    })
    await jetStream.ensureStream(source, 'label', { maxMsgs: 5 }, options)
    const { description, discard, duplicate_window, max_msgs } = config()!
    assert.deepEqual([description, discard, duplicate_window, max_msgs], ['old', 'old', 100_000_000, 5])
  })

  it('serializes concurrent changes', async () => {
    const { jetStream, verbs, config } = start({ description: 'old', subjects: ['x'] })
    await Promise.all([
      jetStream.describeStream(source, 'new', options),
      jetStream.ensureStream(source, 'label', { maxMsgs: 5 }, options),
    ])
    assert.deepEqual([config()?.description, config()?.max_msgs], ['new', 5])
    assert.deepEqual(verbs, ['INFO', 'UPDATE', 'INFO', 'UPDATE'])
  })

  it('reports last + 1 as the first sequence when it is empty', async () => {
    const { jetStream } = start({}, { messages: 0, first_seq: 4, last_seq: 9 })
    const { firstSequence, lastSequence } = (await jetStream.stream(source, options))!
    assert.deepEqual([firstSequence, lastSequence], [10, 9])
  })

  it('rejects oversized answers and invalid JSON', async () => {
    const server = new ScriptedConnection()
    const jetStream = new JetStream(() => server.connection)
    server.serve = () => ({ description: 'x'.repeat(4 * 1024 * 1024) })
    await assert.rejects(jetStream.stream(source, options), { code: 'rejected', message: /exceeds the limit/ })
    server.serve = () => ({ message: { seq: 1, time: '', data: 'x'.repeat(4 * 1024 * 1024) } })
    assert.equal((await jetStream.message(source, 1, options))?.seq, 1)
    Object.assign(server, { request: async () => ({ data: Buffer.from('<html>') }) })
    await assert.rejects(jetStream.stream(source, options), { code: 'rejected', message: /not valid JSON/ })
  })

  it('is undefined when it does not exist', async () => {
    const { jetStream } = start()
    assert.equal(await jetStream.stream(source, options), undefined)
    await assert.rejects(jetStream.describeStream(source, 'label', options), { code: 'not_found' })
  })
})
