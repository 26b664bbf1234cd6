// What the gate for HarperDB does while subscriptions change, and how much a node can make it log. The servers are simulated.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ReaderAdmission } from '../../lib/mesh/mesh.ts'
import type { Connection } from '../../lib/mesh/nats/connection.ts'
import { HarperGate, reviewHarperReaders } from '../../lib/mesh/nats/harper-gate.ts'
import { type JetStream, streamName } from '../../lib/mesh/nats/jetstream.ts'

const table = { database: 'dev', table: 'dog' }
const stream = streamName(table)

function scene({ node = 'node1', peer = 'node2' } = {}) {
  const state = { admitted: true, lines: 0, hold: Promise.resolve() as Promise<unknown> }
  const consumers = new Set<string>()
  const handlers = new Map<string, (message: object) => void>()
  const count = () => void state.lines++
  const logger = { debug() {}, info: count, warn: count, error: count }
  const infoOf = (name: string) => ({ name, config: {}, ack_floor: { stream_seq: 0 } })
  const jetStream = {
    consumerByName: async () => undefined,
    consumer: async (_: unknown, name: string) => (consumers.has(name) ? infoOf(name) : undefined),
    createConsumer: async () => ({ name: 'x', before: 0 }),
    deleteConsumer: async (_: unknown, name: string) => void consumers.delete(name),
    deleteByName: async (_: string, __: string, name: string) => void consumers.delete(name),
    createDurable: async (_: unknown, { name }: { name: string }) => {
      await state.hold
      consumers.add(name)
      return infoOf(name)
    },
    consumersByStream: async () => [{ stream, consumers: [...consumers] }],
  } as never as JetStream
  const mesh = {
    subscribe(subject: string, handler: (message: object) => void) {
      handlers.set(subject.split('.').slice(3, -2).join('.'), handler)
      return { unsubscribe() {} }
    },
  } as never as Connection
  const subscriptions = [{ ...table, publish: true }]
  const none: never[] = []
  const admission: ReaderAdmission = {
    subscriptionsOf: (name) => (state.admitted && name === peer ? subscriptions : none),
    startOf: async () => ({ sequence: 1 }),
  }
  new HarperGate({ node, jetStream, mesh, store: mesh, admission, logger }).open()
  const asked = `${peer}-leaf`
  const config = { ack_policy: 'explicit', durable_name: asked, deliver_policy: 'all' }
  const ask = (verb: string, body: object = {}) =>
    new Promise<{ error?: object; name?: string }>((resolve) =>
      handlers.get(verb)!({
        subject: `$JS.API.CONSUMER.${verb}.${stream}.${asked}`,
        data: Buffer.from(JSON.stringify(body)),
        respond: (answer: string) => resolve(JSON.parse(answer)),
      }),
    )
  const create = () => ask('CREATE', { stream_name: stream, config })
  const remove = () => handlers.get('DELETE')!({ subject: `$JS.API.CONSUMER.DELETE.${stream}.${asked}` })
  const review = () => reviewHarperReaders(node, jetStream, admission, logger)
  return { state, consumers, create, remove, review }
}

describe('the gate', () => {
  it('leaves no consumer of a node whose subscription ends while it is made', async () => {
    const { state, consumers, create, review } = scene()
    let release = () => {}
    state.hold = new Promise<void>((resolve) => {
      release = resolve
    })
    const created = create()
    await new Promise((resolve) => setImmediate(resolve))
    state.admitted = false
    await review()
    release()
    assert.ok((await created).error)
    assert.deepEqual([...consumers], [])
  })

  it('logs a bounded number of lines, however often a node begins to read', async () => {
    const { state, consumers, create, remove } = scene()
    for (let time = 0; time < 200; time++) {
      await create()
      remove()
      while (consumers.size > 0) await new Promise((resolve) => setImmediate(resolve))
    }
    assert.ok(state.lines <= 50, `${state.lines} lines`)
  })

  for (const names of [{ peer: 'a--of--b' }, { peer: 'node2', node: 'a--of--b' }])
    it(`keeps the consumer of '${names.peer}' on '${names.node ?? 'node1'}'`, async () => {
      const { consumers, create, review } = scene(names)
      assert.equal((await create()).error, undefined)
      await review()
      assert.equal(consumers.size, 1)
    })
})
