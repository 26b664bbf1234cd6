// Attributes that a table has on one node only: they are added to the table of a subscriber, and reported there.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { ApplyOutcome, Batch, NewAttributes, Payload } from '../../lib/index.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { AddedAttributes } from '../../lib/peers/added-attributes.ts'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
const attributes = ['id', 'name']
const both = [{ ...dog, publish: true, subscribe: true }]

/** Takes only attributes that the table has. */
class StrictHost extends MemoryHost {
  readonly altered: NewAttributes[] = []
  /** Runs before attributes are added. */
  beforeAlter: () => unknown = () => {}

  attributes(): string[] {
    return [...this.tables.values()][0]!.attributes
  }

  override async alterTable(table: NewAttributes): Promise<void> {
    await this.beforeAlter()
    this.altered.push(table)
    await super.alterTable(table)
  }

  override async apply(batch: Batch): Promise<ApplyOutcome> {
    for (const { writes } of batch.transactions)
      for (const write of writes)
        for (const record of write.operation === 'delete' ? [] : write.records)
          for (const name of Object.keys(record))
            if (!this.attributes().includes(name)) throw new Error(`the table has no column '${name}'`)
    return super.apply(batch)
  }
}

async function open(test: TestContext, hosts: readonly MemoryHost[], options: object = {}) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const names = hosts.map((_, index) => `node${index + 1}`)
  const host = (name: string) => hosts[names.indexOf(name)]!
  const cluster = await startCluster(names, { network, subscribe: false, host, options })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const nodes = cluster.nodes as readonly ClusterNode[]
  return { clock, network, cluster, one: nodes[0]!, two: nodes[1]! }
}

function reported({ cluster }: ClusterNode): Payload<'table:attributes'>[] {
  const payloads: Payload<'table:attributes'>[] = []
  cluster.on('table:attributes', (payload) => payloads.push(payload))
  return payloads
}

const tables = [{ ...dog, attributes }]

describe('an attribute that only the source has', () => {
  it('is added when the nodes meet, and reported once', async (test) => {
    const [first, second] = [new StrictHost({ tables }), new StrictHost({ tables })]
    const { clock, network, cluster, one, two } = await open(test, [first, second])
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await cluster.converged()
    const events = reported(two)
    network.cut('node1', 'node2')
    await clock.advance(10_000)
    assert.equal(two.cluster.peers()[0]!.up, false)
    await first.alterTable({ ...dog, attributes: ['age', 'owner'] })
    network.heal()
    await clock.advance(2_000)
    await eventually('it is reported', () => events.length > 0)
    assert.deepEqual(events, [{ node: 'node1', ...dog, attributes: ['age', 'owner'] }])
    assert.deepEqual(second.attributes(), [...attributes, 'age', 'owner'])
    await one.host.insert('dev', 'dog', { id: 1, age: 3 })
    await cluster.converged()
    assert.equal(second.altered.length, 1)
    assert.equal(events.length, 1)
  })

  it('is added when a subscription is made', async (test) => {
    const first = new StrictHost({ tables: [{ ...dog, attributes: [...attributes, 'age'] }] })
    const second = new StrictHost({ tables })
    const { two } = await open(test, [first, second])
    const events = reported(two)
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await eventually('it is reported', () => events.length > 0)
    assert.deepEqual(second.attributes(), [...attributes, 'age'])
  })

  it('is added before the first row that has it is applied', async (test) => {
    const [first, second] = [new MemoryHost({ tables }), new StrictHost({ tables })]
    const { cluster, one, two } = await open(test, [first, second])
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await cluster.converged()
    const events = reported(two)
    let stalls = 0
    two.cluster.on('replication:stalled', () => stalls++)
    for (let id = 0; id < 20; id++) await one.host.insert('dev', 'dog', { id, name: 'Rex', age: id })
    await one.host.update('dev', 'dog', { id: 1, owner: 'Ida' })
    await cluster.converged()
    assert.equal(stalls, 0)
    assert.deepEqual(
      events.map((event) => event.attributes),
      [['age'], ['owner']],
    )
    assert.deepEqual(second.get('dev', 'dog', 1), { id: 1, name: 'Rex', age: 1, owner: 'Ida' })
  })

  it('is only reported for a host without alterTable, which takes the rows', async (test) => {
    const [first, second] = [new MemoryHost({ tables }), new MemoryHost({ tables })]
    Object.assign(second, { alterTable: undefined })
    const { cluster, one, two } = await open(test, [first, second])
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await cluster.converged()
    const events = reported(two)
    for (let id = 0; id < 20; id++) await one.host.insert('dev', 'dog', { id, age: id })
    await cluster.converged()
    assert.deepEqual(events, [{ node: 'node1', ...dog, attributes: ['age'] }])
    assert.deepEqual(second.get('dev', 'dog', 1), { id: 1, age: 1 })
  })

  it('holds nothing up when the host cannot add it: the rows decide', async (test) => {
    const [first, second] = [new MemoryHost({ tables }), new MemoryHost({ tables })]
    let calls = 0
    second.alterTable = async () => {
      calls++
      throw new Error('no space')
    }
    const { cluster, one, two } = await open(test, [first, second])
    await two.cluster.addNode({ node_name: 'node1', subscriptions: both })
    await cluster.converged()
    const events = reported(two)
    for (let id = 0; id < 20; id++) await one.host.insert('dev', 'dog', { id, age: id, [`a${id}`]: true })
    await cluster.converged()
    assert.ok(calls <= 2, 'a failed call waits for its next attempt')
    assert.deepEqual(second.get('dev', 'dog', 3), { id: 3, age: 3, a3: true })
    assert.deepEqual(events, [])
  })

  it('stays away from tables that are only published', async (test) => {
    const more = [...attributes, 'age']
    const [cat, cow] = [
      { ...dog, table: 'cat' },
      { ...dog, table: 'cow' },
    ]
    const first = new MemoryHost({ tables: [dog, cat, cow].map((each) => ({ ...each, attributes: more })) })
    const second = new StrictHost({ tables: [dog, cat, cow].map((each) => ({ ...each, attributes })) })
    const { two } = await open(test, [first, second])
    await two.cluster.addNode({
      node_name: 'node1',
      subscriptions: [
        { ...dog, publish: true, subscribe: false },
        { ...cow, publish: true, subscribe: true },
      ],
    })
    await eventually('the subscribed one is altered', () => second.altered.length > 0)
    assert.deepEqual(second.altered, [{ ...cow, attributes: ['age'] }])
  })
})

describe('adding attributes', () => {
  function subject(
    alterTable: (table: NewAttributes) => Promise<void>,
    hostTables = [{ ...dog, primaryKey: 'id', attributes }],
  ) {
    const clock = new TestClock()
    const warnings: object[] = []
    const events: [node: string, attributes: string[]][] = []
    const added = new AddedAttributes({
      host: { describe: async () => hostTables, alterTable },
      timers: clock,
      logger: { ...silentLogger, warn: (fields) => void warnings.push(fields) },
      attributesAdded: (_, node, names) => events.push([node, names]),
    })
    return { clock, warnings, events, added }
  }
  const source = (node: string) => ({ node, ...dog })

  it('is repeated until it succeeds, with one warning', async () => {
    let failures = 3
    const { clock, warnings, events, added } = subject(async () => {
      if (failures-- > 0) throw new Error('locked')
    })
    await added.add(source('node1'), ['age'])
    await added.add(source('node2'), ['owner'])
    assert.deepEqual(events, [])
    await clock.advance(20_000)
    assert.deepEqual(events, [
      ['node1', ['age']],
      ['node2', ['owner']],
    ])
    assert.equal(warnings.length, 1)
  })

  it('is one call for attributes that are found meanwhile, and ends with close', async () => {
    let release = () => {}
    const calls: string[][] = []
    const { clock, events, added } = subject(async (table) => {
      calls.push(table.attributes)
      await new Promise<void>((resolve) => {
        release = resolve
      })
    })
    const first = added.add(source('node1'), ['age'])
    await eventually('it is called', () => calls.length === 1)
    const others = [added.add(source('node2'), ['age', 'owner']), added.add(source('node1'), ['born'])]
    release()
    await eventually('it is called again', () => calls.length === 2)
    release()
    await Promise.all([first, ...others])
    assert.deepEqual(calls, [['age'], ['owner', 'born']])
    assert.equal(events.length, 3)
    added.close()
    await added.add(source('node1'), ['late'])
    await clock.advance(60_000)
    assert.equal(calls.length, 2)
  })

  it('leaves a dropped table alone, and bounds the number of attributes', async () => {
    const dropped = subject(async () => assert.fail('the table is gone'), [])
    await dropped.added.add(source('node1'), ['age'])
    const calls: NewAttributes[] = []
    const { added } = subject(async (table) => void calls.push(table))
    await added.add(
      source('node1'),
      Array.from({ length: 20_000 }, (_, index) => `a${index}`),
    )
    assert.deepEqual(
      calls.map((each) => each.attributes.length),
      [10_000 - attributes.length],
    )
  })
})
