// Every code in the table of errors is provoked through the public API and arrives as the table defines it. The compiler requires
// an entry for each code.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, it, type TestContext, test } from 'node:test'
import {
  ClusterError,
  ClusterManager,
  type ClusterOptions,
  type ErrorCode,
  errors,
  type Transaction,
  type Write,
} from '../../lib/index.ts'
import { encode } from '../../lib/peers/protocol.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually, TestCluster, temporaryDirectory } from '../support/cluster.ts'
import { harperLogin } from '../support/harper-http.ts'
import { harperSite } from '../support/harper-site.ts'
import { insert, MemoryHost } from '../support/memory-host.ts'
import { both, dog, type MemoryNodeOptions, numbered, Scene } from '../support/memory-scene.ts'

const superUser = { superUser: true }
const withNode2 = { node_name: 'node2', subscriptions: both }
const route = { host: '127.0.0.1', port: 12345 }

/** A manager on an in-memory network. */
const alone = (test: TestContext, options?: MemoryNodeOptions) => new Scene(test).start('node1', options)

/** A manager on an in-memory network, of a file with this section. */
async function openSection(test: TestContext, section: object): Promise<ClusterManager> {
  const [directory, remove] = await temporaryDirectory()
  test.after(remove)
  const configFile = join(directory, 'config.yaml')
  await writeFile(configFile, JSON.stringify({ clustering: section }))
  const mesh = new MemoryNetwork().mesh()
  const cluster = await ClusterManager.open({ configFile, host: new MemoryHost(), mesh })
  test.after(() => cluster.close())
  return cluster
}

/** Two nodes without subscriptions; the options apply to the first. */
async function pair(test: TestContext, options: Partial<ClusterOptions> = {}) {
  const scene = new Scene(test)
  const node1 = await scene.start('node1', { options })
  const node2 = await scene.start('node2')
  return { network: scene.network, node1, node2 }
}

/** Two nodes that replicate the table `dog` both ways. */
async function linkedPair(test: TestContext, options: Partial<ClusterOptions> = {}) {
  const { node1, node2 } = await pair(test, options)
  await node1.cluster.addNode(withNode2)
  return { node1, node2 }
}

/** A transaction that the database has committed. */
function committed(host: MemoryHost, cluster: ClusterManager, ...writes: Write[]): Transaction {
  const one = [insert('dog', { id: 1 })]
  const transaction = { id: 'committed', timestamp: cluster.timestamp(), writes: writes.length > 0 ? writes : one }
  host.commitAs(transaction)
  return transaction
}

const never = new Promise<never>(() => {})

const provoke: Record<ErrorCode, (test: TestContext) => Promise<unknown>> = {
  // --- the request ------------------------------------------------------------------------------------------------------

  async forbidden(test) {
    const { cluster } = await alone(test)
    return cluster.execute({ operation: 'cluster_status' }, { superUser: false })
  },
  async operation_missing(test) {
    const { cluster } = await alone(test)
    return cluster.execute({}, superUser)
  },
  async operation_unknown(test) {
    const { cluster } = await alone(test)
    return cluster.execute({ operation: 'cluster_dance' }, superUser)
  },
  async clustering_disabled(test) {
    const cluster = await openSection(test, { enabled: false })
    return cluster.network()
  },
  async invalid_request(test) {
    const { cluster } = await alone(test)
    const request: unknown = { operation: 'add_node', node_name: 'node2' }
    return cluster.execute(request, superUser)
  },
  async name_not_replicable(test) {
    const { cluster } = await alone(test)
    return cluster.purgeStream({ ...dog, table: 'hot.dog' })
  },
  async table_not_found(test) {
    const { cluster } = await alone(test)
    return cluster.purgeStream({ ...dog, table: 'unicorn' })
  },
  async database_not_found(test) {
    const { cluster } = await alone(test)
    return cluster.purgeStream({ ...dog, database: 'prod' })
  },
  async node_not_found(test) {
    const { cluster } = await alone(test)
    return cluster.removeNode({ node_name: 'node2' })
  },
  async subscription_not_found(test) {
    const { cluster } = await alone(test)
    return cluster.quarantine.replay({ node: 'node2', ...dog })
  },
  async subscription_not_stalled(test) {
    const { node1 } = await linkedPair(test)
    return node1.cluster.quarantine.add({ node: 'node2', ...dog })
  },
  async rows_not_served(test) {
    const scene = new Scene(test)
    const host = new MemoryHost([['dev', 'dog']], { readRows: false })
    const { cluster } = await scene.start('node1', { host })
    await scene.start('node2')
    await cluster.addNode(withNode2)
    return cluster.verify({ node: 'node2', ...dog })
  },
  async quarantine_full(test) {
    const { node1, node2 } = await linkedPair(test, { maxQuarantined: 0 })
    node1.host.beforeApply = ({ transactions }) => {
      if (transactions.length > 0) throw new Error('refused')
    }
    await node2.write(['a'])
    await eventually('it is refused', () => node1.of(node2).refused)
    return node1.cluster.quarantine.add({ node: 'node2', ...dog })
  },
  async transaction_too_large(test) {
    const { host, mesh } = await alone(test)
    return host.write('large', insert('dog', { id: 'large', text: 'x'.repeat(mesh.maxPayload) }))
  },
  async closed(test) {
    const { cluster } = await alone(test)
    await cluster.close()
    return cluster.status()
  },

  // --- the remote node ---------------------------------------------------------------------------------------------------

  async node_exists(test) {
    const { node1 } = await pair(test)
    await node1.cluster.addNode(withNode2)
    return node1.cluster.addNode(withNode2)
  },
  async node_not_listening(test) {
    const { network, node1 } = await pair(test)
    network.cut('node2')
    return node1.cluster.addNode(withNode2)
  },
  async node_timeout(test) {
    const { node1, node2 } = await pair(test, { requestTimeout: 100 })
    // Its servers answer, its database does not. With a silent network the node would count as down.
    node2.host.describe = () => never
    return node1.cluster.addNode(withNode2)
  },
  async peer_rejected(test) {
    const { node1, node2 } = await pair(test)
    await writeFile(node2.configFile, 'clustering: {')
    return node1.cluster.addNode(withNode2)
  },
  async aborted(test) {
    const { node1, node2 } = await pair(test)
    const caller = new AbortController()
    node2.host.describe = () => {
      caller.abort()
      return never
    }
    return node1.cluster.addNode(withNode2, { signal: caller.signal })
  },

  // --- the local node ------------------------------------------------------------------------------------------

  async mesh_unavailable(test) {
    const { network, node1 } = await pair(test)
    network.crash('node1')
    return node1.cluster.addNode(withNode2)
  },
  async node_superseded(test) {
    const { network, node1 } = await pair(test)
    const other = network.mesh()
    await other.open('other', { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
    await eventually('node1 stands down', () => {
      other.announce(encode({ node: 'node1', instance: 'other', started: 0, session: '', streams: [] }))
      return node1.cluster.state === 'superseded'
    })
    return node1.cluster.addNode(withNode2)
  },
  async publish_timeout(test) {
    const { network, node1 } = await pair(test, { publishTimeout: 100 })
    network.crash('node1')
    return node1.write(['late'])
  },
  async restamping(test) {
    const { cluster, host } = await alone(test)
    host.restamp = () => never
    cluster.restamp().catch(() => {})
    return host.write('meanwhile', insert('dog', { id: 1 }))
  },
  async replace_unsupported(test) {
    const host = Object.assign(new MemoryHost([['dev', 'dog']]), { emptyTable: undefined }) as never
    const scene = new Scene(test)
    const node1 = await scene.start('node1', { host })
    await scene.start('node2')
    return node1.cluster.addNode({
      node_name: 'node2',
      subscriptions: [{ ...dog, subscribe: true, publish: true, copy: true, replace: true }],
    })
  },
  async restamp_unsupported(test) {
    const host = Object.assign(new MemoryHost([['dev', 'dog']]), { restamp: undefined }) as never
    const { cluster } = await alone(test, { host })
    return cluster.restamp()
  },
  async clock_ahead(test) {
    const { network, node1 } = await pair(test)
    network.skew('node1', 86_400_000)
    node1.cluster.timestamp()
    network.skew('node1', 0)
    return node1.cluster.addNode(withNode2)
  },
  async not_in_outbox(test) {
    const { cluster } = await alone(test)
    return cluster.publish({ id: 'not stored', timestamp: cluster.timestamp(), writes: [insert('dog', { id: 1 })] })
  },
  async too_few_replicas(test) {
    const { cluster, host } = await alone(test)
    return cluster.replicated(committed(host, cluster))
  },
  async not_applied(test) {
    const { node1, node2 } = await linkedPair(test)
    node2.host.beforeApply = ({ transactions }) => {
      if (transactions.length > 0) throw new Error('refused')
    }
    const transaction = committed(node1.host, node1.cluster)
    const waiting = assert.rejects(node1.cluster.replicated(transaction, { timeout: 300 }), {
      code: 'replication_timeout',
    })
    const isRefused = () => node2.cluster.subscriptions()[0]!.refused
    await eventually('node2 refuses it', isRefused)
    await waiting
    await node2.cluster.quarantine.add({ node: 'node1', ...dog })
    return node1.cluster.replicated(transaction, { nodes: ['node2'] })
  },
  async replication_timeout(test) {
    const { node1, node2 } = await linkedPair(test)
    node2.host.beforeApply = () => never
    return node1.cluster.replicated(committed(node1.host, node1.cluster), { timeout: 50 })
  },
  async token_invalid(test) {
    const { cluster } = await alone(test)
    return cluster.caughtUp('nothing')
  },
  async token_expired(test) {
    const { cluster } = await alone(test)
    const parts = ['node1', cluster.timestamp(), [dog.database, dog.table, 'of another life', 1]]
    return cluster.caughtUp(Buffer.from(JSON.stringify([1, ...parts])).toString('base64url'))
  },
  async token_too_large(test) {
    const tables = numbered('table', 200).map((table): [string, string] => ['dev', table])
    const { cluster, host } = await alone(test, { host: new MemoryHost(tables) })
    return cluster.token(committed(host, cluster, ...tables.map(([, table]) => insert(table, { id: 1 }))))
  },
  async host_timeout(test) {
    const { cluster, host } = await alone(test, { options: { hostTimeout: 100 } })
    host.describe = () => new Promise(() => {})
    return cluster.purgeStream(dog)
  },
  async internal(test) {
    const { cluster, host } = await alone(test)
    host.describe = () => Promise.reject(new Error('the disk of the database is broken'))
    return cluster.purgeStream(dog)
  },
  async config_rejected(test) {
    const { cluster, configFile } = await alone(test)
    await writeFile(configFile, 'clustering: {')
    return cluster.setRoutes({ server: 'hub', routes: [route] })
  },

  // --- opening ----------------------------------------------------------------------------------------------------------

  invalid_option: (test) => alone(test, { options: { requestTimeout: 0 } }),
  node_name_missing: (test) => openSection(test, { enabled: true, user: 'cluster_user' }),
  async config_locked(test) {
    const cluster = TestCluster.for(test)
    const files = await cluster.prepare('node1', { clustering: { enabled: false } })
    await cluster.open(files)
    return cluster.open(files)
  },
  async directory_in_use(test) {
    const [directory, remove] = await temporaryDirectory()
    test.after(remove)
    const section = JSON.stringify({ clustering: { enabled: true, nodeName: 'node1' } })
    const files = ['one.yaml', 'two.yaml'].map((name) => join(directory, name))
    for (const configFile of files) {
      await writeFile(configFile, section)
      const cluster = await ClusterManager.open({
        configFile,
        host: new MemoryHost(),
        mesh: new MemoryNetwork().mesh(),
      })
      test.after(() => cluster.close())
    }
  },
  async config_unwritable(test) {
    const cluster = TestCluster.for(test)
    const files = await cluster.prepare('node1')
    return cluster.open({ ...files, configFile: join(files.directory, 'none', 'config.yaml') })
  },
  async directory_unusable(test) {
    const cluster = TestCluster.for(test)
    const files = await cluster.prepare('node1')
    await writeFile(join(files.directory, 'clustering'), 'a file in place of the directory')
    return cluster.open(files)
  },
  async state_unwritable(test) {
    const { node1 } = await linkedPair(test)
    const file = join(node1.directory, 'clustering', 'revisions.json')
    // A file cannot take the place of a directory.
    await rename(file, `${file}.kept`)
    await mkdir(file)
    return node1.cluster.pause({ node: 'node2', ...dog })
  },
  nats_server_missing: (test) =>
    TestCluster.for(test).start('node1', { options: { natsServer: '/no/such/nats-server' } }),
  tls_invalid(test) {
    const [certificate, certificateAuthority, privateKey] = ['none.pem', 'authority.pem', 'key.pem']
    const tls = { certificate, certificateAuthority, privateKey }
    return TestCluster.for(test).start('node1', { clustering: { tls } })
  },
  async version_unsupported(test) {
    const cluster = TestCluster.for(test)
    const files = await cluster.prepare('node1')
    const directory = join(files.directory, 'clustering')
    await mkdir(directory, { mode: 0o700 })
    await writeFile(join(directory, 'revisions.json'), '{"v":2}')
    return cluster.open(files)
  },
  async server_failed(test) {
    const [directory, remove] = await temporaryDirectory()
    test.after(remove)
    const natsServer = join(directory, 'nats-server')
    // It reports a version that is new enough, and does not run with a configuration.
    const script = '#!/bin/sh\ncase "$1" in -c) exit 1;; esac\necho nats-server: v2.14.3\n'
    await writeFile(natsServer, script, { mode: 0o755 })
    return TestCluster.for(test).start('node1', { options: { natsServer } })
  },
  async port_taken(test) {
    const cluster = TestCluster.for(test)
    const files = await cluster.prepare('node1')
    const taken = createServer((socket) => socket.destroy()).listen(files.ports.hub, '127.0.0.1')
    test.after(() => taken.close())
    await once(taken, 'listening')
    return cluster.open(files)
  },

  // --- the migration from HarperDB --------------------------------------------------------------------------------------

  async harperdb_unreachable(test) {
    const { harper, migrate } = await harperSite(test)
    await harper.stop()
    return migrate()
  },
  async harperdb_rejected(test) {
    const { migrate } = await harperSite(test)
    return migrate({ harper: { ...harperLogin, password: 'wrong' } })
  },
  async migration_blocked(test) {
    const { harper, migrate } = await harperSite(test)
    harper.isEnabled = false
    return migrate()
  },
}

describe('every error code occurs as the table defines it', { timeout: 180_000 }, () => {
  for (const code of Object.keys(errors) as ErrorCode[])
    it(code, async (test) => {
      const error = await provoke[code](test).then(
        () => assert.fail('nothing was rejected'),
        (reason: unknown) => reason,
      )
      assert.ok(error instanceof ClusterError, String(error))
      const { statusCode, retryable, hint } = errors[code]
      assert.deepEqual(
        { code: error.code, statusCode: error.statusCode, retryable: error.retryable, hint: error.hint },
        { code, statusCode, retryable, hint },
      )
      assert.notEqual(error.message, '')
    })
})

test('an invalid transaction is rejected with one issue for each fault', async (t) => {
  const { cluster, host } = await alone(t)
  const issues = (transaction: unknown) =>
    cluster.publish(transaction as Transaction).then(
      () => assert.fail('it was accepted'),
      (error: ClusterError) => error.issues?.map(({ path }) => path),
    )
  const timestamp = cluster.timestamp()
  assert.deepEqual(await issues(undefined), ['id', 'timestamp', 'writes'])
  assert.deepEqual(await issues({ id: '', timestamp, writes: [] }), ['id'])
  assert.deepEqual(await issues({ id: 'one', timestamp: 'now', writes: [] }), ['timestamp'])
  assert.deepEqual(await issues({ id: 'one', timestamp, writes: {} }), ['writes'])
  const unsendable = host.write('two\nlines', insert('dog', { id: 1 }))
  await assert.rejects(unsendable, (error: ClusterError) => /its id/.test(error.issues?.[0]?.message ?? ''))
})

test('unknown and invalid options are rejected by name', async () => {
  const file = { configFile: 'config.yaml', host: new MemoryHost() }
  const open = (options: object) => ClusterManager.open(options as ClusterOptions)
  for (const [options, message] of [
    [{ ...file, requestTimout: 5 }, "Unknown option 'requestTimout'. Did you mean 'requestTimeout'?"],
    [{ ...file, natServer: '/bin' }, "Unknown option 'natServer'. Did you mean 'natsServer'?"],
    [{ ...file, colour: 'red' }, "Unknown option 'colour'."],
    [{ ...file, logger: { warn() {}, error() {} } }, "Option 'logger.debug' must be a function, received undefined"],
    [{ ...file, requestTimeout: '5' }, "Option 'requestTimeout' must be an integer from 100 to 600000, received '5'"],
    [
      { ...file, host: Object.assign(new MemoryHost(), { lastTimestamp: undefined }) },
      "Option 'host.lastTimestamp' must be a function, received undefined",
    ],
    [{}, "Option 'configFile' must be a path, received undefined"],
  ] as const)
    await assert.rejects(open(options), { code: 'invalid_option', message })
  await assert.rejects((ClusterManager.open as () => Promise<unknown>)(), { code: 'invalid_option' })
})
