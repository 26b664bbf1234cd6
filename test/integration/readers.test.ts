// Messages of real servers to a reader, by version: statuses that end a request, and both forms of acknowledgement subjects.

import assert from 'node:assert/strict'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { findBinary } from '../../lib/mesh/nats/binary.ts'
import { leafConfiguration, type ServerSettings } from '../../lib/mesh/nats/configuration.ts'
import { Connection } from '../../lib/mesh/nats/connection.ts'
import { HeaderReader } from '../../lib/mesh/nats/header-reader.ts'
import { JetStream, subjectOf } from '../../lib/mesh/nats/jetstream.ts'
import { PullReader } from '../../lib/mesh/nats/pull-reader.ts'
import { NatsServer } from '../../lib/mesh/nats/server.ts'
import { isAtLeast, type Version, versionText } from '../../lib/mesh/nats/versions.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { eventually, freePorts, temporaryDirectory } from '../support/cluster.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }
const options = { timeout: 5_000 }

/** A leaf with one stream of these messages. `more`: configuration that enmesh does not generate. */
async function leafWith(t: { after(work: () => unknown): void }, messages: readonly Uint8Array[], more: object = {}) {
  const [directory, remove] = await temporaryDirectory()
  const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
  const settings: ServerSettings = {
    node: source.node,
    user: 'user',
    password: 'password',
    clusterName: 'harperdb',
    listen: '127.0.0.1',
    ports: { cluster, leafNodes, hub, leaf },
    logLevel: 'error',
    storeDirectory: join(directory, 'store'),
  }
  await mkdir(settings.storeDirectory)
  const connect = () =>
    Connection.open({ port: leaf, user: 'user', password: () => 'password', name: 'test', onChange() {} })
  const server = new NatsServer({
    kind: 'leaf',
    findBinary: () => findBinary(),
    configFile: join(directory, 'leaf.json'),
    probe: async () => (await connect()).close(),
    portKey: () => '',
    events: { line() {}, died() {}, failed() {}, returned() {} },
    logger: silentLogger,
  })
  t.after(async () => {
    await server.stop()
    await remove()
  })
  await server.start((version) => {
    const configuration = leafConfiguration(settings, [], join(directory, 'leaf.pid'), version)
    return JSON.stringify({ ...JSON.parse(configuration), ...more })
  })
  const connection = await connect()
  t.after(() => connection.close())
  const jetStream = new JetStream(() => connection)
  await eventually('JetStream answers', () => jetStream.info(source.node, options).catch(() => undefined))
  await jetStream.ensureStream(source, '', {}, options)
  for (const [index, data] of messages.entries()) {
    const headers = { 'Nats-Msg-Id': `${index}` }
    connection.publish(subjectOf(source.node, source), data, { headers })
  }
  await eventually(
    'the messages are stored',
    async () => (await jetStream.stream(source, options))?.lastSequence === messages.length,
  )
  return { connection, jetStream }
}

type Leaf = Awaited<ReturnType<typeof leafWith>>

/** Opens a reader and records received statuses and reply subjects. */
async function open({ connection, jetStream }: Leaf, maxMessages: number) {
  const statuses: string[] = []
  const replies: string[] = []
  const recording = Object.create(connection, {
    subscribe: {
      value: (subject: string, callback: Parameters<Connection['subscribe']>[1]) =>
        connection.subscribe(subject, (message) => {
          if (message.subject !== subject) replies.push(message.reply ?? '')
          else statuses.push(`${message.headers?.code} ${message.headers?.description}`)
          callback(message)
        }),
    },
    publish: { value: connection.publish.bind(connection) },
    request: { value: connection.request.bind(connection) },
    inbox: { value: connection.inbox.bind(connection) },
  }) as Connection
  const consumers = { create: jetStream.createConsumer.bind(jetStream) }
  const names: string[] = []
  const create: typeof consumers.create = async (...given) => {
    const made = await consumers.create(...given)
    names.push(made.name)
    return made
  }
  const access = { connection: recording, jetStream, consumers: { create }, headers: new HeaderReader(silentLogger) }
  const reader = await PullReader.open(access, source, 1, { ...options, maxMessages }, () => {})
  return { reader, statuses, replies, consumer: names[0]! }
}

async function readAll(reader: PullReader, count: number): Promise<number[]> {
  const sequences: number[] = []
  while (sequences.length < count) sequences.push(...(await reader.next()).map(({ sequence }) => sequence))
  return sequences
}

const numbered = (count: number) => Array.from({ length: count }, (_, index) => index + 1)
const small = (count: number) => numbered(count).map((number) => Buffer.from(`${number}`))
const { version } = await findBinary()

describe(`a reader and nats-server ${versionText(version)}`, () => {
  for (const maxMessages of [1, 2, 7, 500])
    test(`reads everything with one consumer when it holds ${maxMessages} messages`, async (t) => {
      const leaf = await leafWith(t, small(300))
      const { reader, statuses } = await open(leaf, maxMessages)
      t.after(() => reader.close())
      assert.deepEqual(await readAll(reader, 300), numbered(300))
      assert.equal(reader.failed, false)
      const completed = statuses.filter((status) => status === '409 Batch Completed')
      if (isAtLeast(version, [2, 10, 0]) && maxMessages < 300) assert.ok(completed.length > 0, `${statuses}`)
      assert.deepEqual(
        statuses.filter((status) => status !== '409 Batch Completed'),
        [],
      )
    })

  test('reads messages that exceed the bytes of a request with one consumer', async (t) => {
    const large = Buffer.alloc(5 * 1024 * 1024)
    const leaf = await leafWith(t, [...small(3), large, ...small(2), large, ...small(1)])
    const { reader, statuses } = await open(leaf, 100)
    t.after(() => reader.close())
    assert.deepEqual(await readAll(reader, 8), numbered(8))
    assert.ok(statuses.includes('409 Message Size Exceeds MaxBytes'), `${statuses}`)
    assert.equal(reader.failed, false)
  })

  test('fails when its consumer is deleted', async (t) => {
    const leaf = await leafWith(t, small(2))
    const { reader, statuses, consumer } = await open(leaf, 100)
    assert.deepEqual(await readAll(reader, 2), [1, 2])
    const lost = assert.rejects(reader.next(), { code: 'reader_lost' })
    await leaf.jetStream.deleteConsumer(source, consumer, options)
    await lost
    assert.ok(statuses.includes('409 Consumer Deleted'), `${statuses}`)
  })

  /** The first version with the flag. */
  const hasFlag: Version = [2, 14, 0]
  test('reads acknowledgement subjects of both forms', async (t) => {
    for (const isSecond of isAtLeast(version, hasFlag) ? [false, true] : [false]) {
      const leaf = await leafWith(t, small(5), isSecond ? { feature_flags: { js_ack_fc_v2: true } } : {})
      const { reader, replies } = await open(leaf, 100)
      assert.deepEqual(await readAll(reader, 5), numbered(5))
      for (const reply of replies) assert.equal(reply.split('.').length, isSecond ? 11 : 9, reply)
      reader.close()
    }
  })
})

test('a request that waits when its connection is closed ends at once', async (t) => {
  const { connection } = await leafWith(t, [])
  const asked = connection.subscribe('silent', () => {})
  const request = connection.request('silent', '', { timeout: 60_000 })
  const rejected = assert.rejects(request, { code: 'disconnected' })
  await connection.close()
  await rejected
  asked.unsubscribe()
})
