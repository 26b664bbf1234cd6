// Consumers of HarperDB nodes from the time when HarperDB ran on this node, and of nodes that were asked in vain.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Logger } from '../../lib/index.ts'
import type { ReaderAdmission } from '../../lib/mesh/mesh.ts'
import type { Connection } from '../../lib/mesh/nats/connection.ts'
import { HarperGate, reviewHarperReaders } from '../../lib/mesh/nats/harper-gate.ts'
import { type JetStream, streamName } from '../../lib/mesh/nats/jetstream.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { eventually } from '../support/cluster.ts'
import { startHarperNode } from '../support/memory-harper-node.ts'
import { both, Scene } from '../support/memory-scene.ts'

const table = { database: 'dev', table: 'dog' }
const stream = streamName(table)
const asked = 'harper-leaf'
/** ns since 1970 of the only message, as an acknowledgement has it. */
const time = '1795730086045123400'

function scene() {
  const state = { admitted: true, isAsked: false, infos: 0, inHand: 7, reading: 0, mostReading: 0, reads: 0 }
  const consumers = new Map<string, Record<string, unknown>>()
  const passed: string[] = []
  const handlers = new Map<string, (message: object) => void>()
  const infoOf = (name: string) => {
    state.infos++
    const config = consumers.get(name)
    const [ack_floor, delivered] = [state.inHand - 1, state.inHand].map((stream_seq) => ({ stream_seq }))
    return config && { name, config, ack_floor, delivered }
  }
  const jetStream = {
    consumer: async (_: unknown, name: string) => infoOf(name),
    consumerByName: async (_: string, __: string, name: string) => infoOf(name),
    updateDurable: async (
      _: string,
      __: string,
      { name, config }: { name: string; config: object },
      change: { max_ack_pending: number; ack_wait: number },
    ) => {
      consumers.set(name, { ...config, ...change, ack_wait: change.ack_wait * 1e9 })
      return infoOf(name)
    },
    deleteByName: async (_: string, __: string, name: string) => void consumers.delete(name),
    consumersByStream: async () => [{ stream, consumers: [...consumers.keys()] }],
    message: async (_: unknown, seq: number) => {
      state.reads++
      state.mostReading = Math.max(state.mostReading, ++state.reading)
      await turn()
      state.reading--
      return seq === 7 ? { time: new Date(1_795_730_086_000).toISOString().replace('000Z', '0451234Z') } : undefined
    },
  } as never as JetStream
  const mesh = {
    subscribe: (subject: string, handler: (message: object) => void) => {
      handlers.set(subject, handler)
      return { unsubscribe() {} }
    },
    publish: (subject: string) => passed.push(subject),
  } as never as Connection
  const names = ['harper', 'harper2']
  const admission: ReaderAdmission = {
    subscriptionsOf: (name) =>
      state.admitted && names.includes(name) ? [{ ...table, publish: true, isAsked: state.isAsked }] : [],
    startOf: async () => ({ sequence: 1 }),
  }
  const logger: Logger = silentLogger
  new HarperGate({ node: 'node1', jetStream, mesh, store: mesh, admission, logger }).open()
  const acknowledge = (sequence: number, at: string, { name = asked, data = '+ACK' } = {}) => {
    const subject = `$JS.ACK.${stream}.${name}.1.${sequence}.1.${at}.0`
    handlers.get('$JS.ACK.>')!({ subject, data: Buffer.from(data) })
    return subject
  }
  const former = (more: object = {}, name = asked) =>
    consumers.set(name, { ack_policy: 'explicit', max_ack_pending: 1_000, ack_wait: 30e9, ...more })
  const review = (by?: ReaderAdmission) => reviewHarperReaders('node1', jetStream, by, logger)
  return { state, consumers, passed, former, acknowledge, review, admission }
}
const turn = () => new Promise((resolve) => setImmediate(resolve))
const turns = async () => {
  for (let time = 0; time < 5; time++) await turn()
}

describe('a former consumer', () => {
  it('gets the acknowledgements of messages that have their time here', async () => {
    const { passed, former, acknowledge } = scene()
    former()
    const right = acknowledge(7, time)
    acknowledge(7, '1795730086045123401')
    acknowledge(8, time)
    acknowledge(7, time, { data: '+TERM' })
    acknowledge(7, time, { name: 'other-leaf' })
    await turns()
    assert.deepEqual(passed, [right])
  })

  it('has one message read at a time, of those in hand only, however many acknowledgements there are', async () => {
    const { state, passed, former, acknowledge } = scene()
    former()
    former({}, 'harper2-leaf')
    for (let time = 0; time < 200; time++) {
      acknowledge(7, '1')
      acknowledge(7, '1', { name: 'harper2-leaf' })
      acknowledge(8 + time, '1')
    }
    const right = acknowledge(7, time)
    await turns()
    assert.deepEqual([passed, state.mostReading], [[right], 1])
    assert.ok(state.reads <= 4, `${state.reads} reads`)
    const { reads } = state
    state.inHand = 8
    acknowledge(7, time)
    await turns()
    assert.deepEqual([passed.length, state.reads], [1, reads], 'acknowledged already')
  })

  it('is read from while its node is asked, and stays when nothing comes of that', async () => {
    const { state, consumers, passed, former, acknowledge, review, admission } = scene()
    state.isAsked = true
    former()
    acknowledge(7, time)
    await turns()
    await review(admission)
    assert.equal(passed.length, 1)
    assert.equal(consumers.get(asked)!.max_ack_pending, 1)
    state.admitted = false
    await review(admission)
    assert.equal(consumers.size, 1, 'the node may be added yet')
    Object.assign(state, { admitted: true, isAsked: false })
    await review(admission)
    assert.equal(consumers.get(asked)!.ack_wait, 5e9)
    state.isAsked = true
    await review(admission)
    assert.equal(consumers.get(asked)!.ack_wait, 5e9, 'asked again')
    state.admitted = false
    await review(admission)
    assert.equal(consumers.size, 0)
  })

  it('that is not here is asked for once in a while', async () => {
    const { state, passed, acknowledge } = scene()
    for (let time = 0; time < 10; time++) {
      acknowledge(7, '1')
      await turn()
    }
    assert.deepEqual([passed, state.infos], [[], 1])
  })

  it('is adopted by a review, and removed with the subscription', async () => {
    const { state, consumers, former, review, admission } = scene()
    former()
    await review(admission)
    assert.deepEqual(consumers.get(asked), { ack_policy: 'explicit', max_ack_pending: 1, ack_wait: 5e9 })
    state.admitted = false
    await review(admission)
    assert.equal(consumers.size, 0)
    former()
    await review(admission)
    assert.equal(consumers.size, 1, 'the node may be added yet')
    former({ deliver_subject: 'x' })
    state.admitted = true
    await review(admission)
    assert.equal(consumers.get(asked)!.max_ack_pending, 1_000, 'not as HarperDB makes it')
  })
})

describe('readers', () => {
  it('are reviewed when a node was asked and nothing was committed', async (test) => {
    const scene = new Scene(test)
    const primary = { database: 'dev', table: 'cat', primaryKey: 'id', attributes: ['id'] }
    await startHarperNode(test, scene.network, 'harper', [primary])
    const node = await scene.start('node1', { clustering: { compatibility: 'harperdb4' } })
    let reviews = 0
    Object.assign(node.mesh, { reviewReaders: async () => void reviews++ })
    Object.assign(node.host, { createTable: () => Promise.reject(new Error('full')) })
    const subscriptions = [{ ...both[0]!, table: 'cat' }]
    await assert.rejects(node.cluster.addNode({ node_name: 'harper', subscriptions }), /full/)
    await eventually('they are reviewed', () => reviews > 0)
    assert.deepEqual(node.cluster.manifest.nodes, [])
  })
})
