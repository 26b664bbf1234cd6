// What the other end cannot accept is shown where it was asked for, and comes about when it can, with all that was committed meanwhile.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { describe, it, type TestContext } from 'node:test'
import { type ClusterNode, eventually, MemoryHost, MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const dog = { database: 'dev', table: 'dog' }
type Flow = { publish: boolean; subscribe: boolean }

async function open(test: TestContext, host?: (name: string) => MemoryHost) {
  const clock = new TestClock()
  const network = new MemoryNetwork({ clock })
  const lines: string[] = []
  const write = (fields: object, text: string) => void lines.push(`${text} ${JSON.stringify(fields)}`)
  const logger = { debug() {}, info() {}, warn: write, error: write }
  const cluster = await startCluster(['one', 'two'], {
    network,
    tables: [dog],
    subscribe: false,
    options: (name) => (name === 'two' ? { logger } : {}),
    ...(host ? { host } : {}),
  })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  const [one, two] = cluster.nodes
  const refusals: string[] = []
  two!.cluster.on('subscription:refused', ({ node, table, reason }) => refusals.push(`${node} ${table} ${reason}`))
  return { network, clock, one: one!, two: two!, lines, refusals }
}

/** Adds a subscription with node `one` to the file of `two`. */
async function edit({ configFile }: ClusterNode, { publish, subscribe }: Flow) {
  const text = await readFile(configFile, 'utf8')
  const nodes = `clustering:\n  nodes:\n    - name: one\n      subscriptions: [{ database: dev, table: dog, publish: ${publish}, subscribe: ${subscribe} }]\n`
  await writeFile(configFile, text.replace('clustering:\n', nodes))
}

const subscriptionOf = async ({ cluster }: ClusterNode) => (await cluster.status()).connections[0]?.subscriptions[0]
const ids = ({ host }: ClusterNode) =>
  host
    .records('dev', 'dog')
    .map(({ id }) => id)
    .sort()

describe('a subscription that the other end refuses', { concurrency: true, timeout: 60_000 }, () => {
  it('because its file is invalid, says so, and later starts where it was made', async (test) => {
    const { clock, one, two, lines, refusals } = await open(test)
    await two.host.insert('dev', 'dog', { id: 'before' })
    const good = await readFile(one.configFile, 'utf8')
    await writeFile(one.configFile, `${good}\nbroken: [\n`)
    await eventually('one rejects its file', () =>
      one.cluster.updateNode({ node_name: 'none', subscriptions: [{ ...dog, publish: true, subscribe: true }] }).then(
        () => false,
        ({ code }) => code === 'config_rejected' || code === 'node_not_listening',
      ),
    )
    await edit(two, { publish: true, subscribe: true })
    await eventually('two is refused', () => refusals.length > 0)
    const shown = await subscriptionOf(two)
    assert.equal(shown?.state, 'refused')
    assert.match(shown?.reason ?? '', /Configuration file .* is not valid/)
    assert.deepEqual(two.cluster.subscriptions()[0]?.disagreement, { state: 'refused', reason: shown?.reason })
    assert.deepEqual(
      two.cluster.health().degraded.filter(({ code }) => code === 'subscription_refused'),
      [{ code: 'subscription_refused', node: 'one', ...dog, message: shown?.reason }],
    )
    await two.host.insert('dev', 'dog', { id: 'meanwhile' })
    await clock.advance(30_000)
    assert.equal(refusals.length, 1, 'one event for each reason')
    assert.equal(lines.filter((line) => line.startsWith('subscription refused by the peer')).length, 1)
    await writeFile(one.configFile, good)
    await eventually('the rows arrive', () => ids(one).includes('meanwhile'))
    assert.equal(one.host.applied.length, 1)
    await eventually('the row from before is copied', () => ids(one).length === 2)
    await eventually('two knows that', async () => (await subscriptionOf(two))?.state === undefined)
    assert.equal(two.cluster.subscriptions()[0]?.disagreement, undefined)
  })

  it('because its database cannot create the table', async (test) => {
    const { one, two, refusals } = await open(test, (name) => new MemoryHost(name === 'two' ? { tables: [dog] } : {}))
    const createTable = one.host.createTable.bind(one.host)
    one.host.createTable = async () => {
      throw new Error('the disk is read-only')
    }
    await edit(two, { publish: true, subscribe: false })
    await eventually('two is refused', () => refusals.length > 0)
    assert.deepEqual(refusals, ['one dog the disk is read-only'])
    await two.host.insert('dev', 'dog', { id: 'meanwhile' })
    one.host.createTable = createTable
    await eventually('the row arrives', () => one.cluster.subscriptions().length > 0 && ids(one).length === 1)
  })

  it('because the primary keys differ', async (test) => {
    const { two, refusals } = await open(
      test,
      (name) => new MemoryHost({ tables: [{ ...dog, primaryKey: name === 'one' ? 'code' : 'id' }] }),
    )
    await edit(two, { publish: true, subscribe: false })
    await eventually('two is refused', () => refusals.length > 0)
    assert.match(refusals[0]!, /^one dog the primary key of 'dev.dog' is 'code' here, not 'id'$/)
  })
})

describe('a subscription with a node that is not reached', { concurrency: true, timeout: 60_000 }, () => {
  it('is pending, with the reason, and begins where it was made', async (test) => {
    const { network, one, two } = await open(test)
    for (const node of [one, two]) await node.host.insert('dev', 'dog', { id: `before of ${node.name}` })
    network.cut('one', 'two')
    await edit(two, { publish: true, subscribe: true })
    const shown = await eventually('two shows it', () => subscriptionOf(two))
    assert.equal(shown.state, 'pending')
    assert.match(shown.reason ?? '', /not listening|not reached/)
    for (const node of [one, two]) await node.host.insert('dev', 'dog', { id: `meanwhile of ${node.name}` })
    network.heal()
    const all = ['meanwhile of one', 'meanwhile of two']
    await eventually('both directions begin', () => all.every((id) => ids(one).includes(id) && ids(two).includes(id)))
    assert.ok(!ids(one).includes('before of two') && !ids(two).includes('before of one'))
    await eventually('two knows that', async () => (await subscriptionOf(two))?.state === undefined)
  })

  it('whose stream does not exist yet gets its first message', async (test) => {
    const { network, one, two } = await open(test)
    const [file, write] = [one.configFile, () => one.host.insert('dev', 'dog', { id: 'first' })]
    const good = await readFile(file, 'utf8')
    await writeFile(file, `${good}\nbroken: [\n`)
    await edit(two, { publish: false, subscribe: true })
    await eventually('two has asked', () => two.cluster.subscriptions()[0]?.error)
    network.cut('one', 'two')
    await write()
    network.heal()
    await eventually('the message arrives', () => ids(two).length === 1)
    await writeFile(file, good)
  })
})
