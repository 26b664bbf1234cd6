// What a migration does with the configuration: it reads that of HarperDB, asks the node and its hub, and writes the one of the new node.

import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { parse } from 'yaml'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { ClusterManager } from '../../lib/index.ts'
import { emptyManifest } from '../../lib/manifest/manifest.ts'
import { HarperApi } from '../../lib/migrate/harper-api.ts'
import { planMigration, readConfiguration } from '../../lib/migrate/plan.ts'
import { planRoutes } from '../../lib/migrate/routes.ts'
import { createReport } from '../../lib/migrate/steps.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Registers } from '../../lib/peers/registers.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { clusterPassword } from '../support/cluster.ts'
import type { HarperConnectionAnswer } from '../support/harper-http.ts'
import { dogs, type HarperSite, harperSite, ROW_TIME } from '../support/harper-site.ts'

const connection = (node_name: string, more: Partial<HarperConnectionAnswer> = {}): HarperConnectionAnswer => ({
  node_name,
  status: 'open',
  ports: { clustering: 9932, operations_api: 9925 },
  subscriptions: [{ schema: 'dev', table: 'dog', publish: true, subscribe: true }],
  system_info: { hdb_version: '4.3.0' },
  ...more,
})

/** A node with a neighbour, whose address is given. */
async function withNeighbour(test: { after(work: () => unknown): void }, more?: Partial<HarperConnectionAnswer>) {
  const site = await harperSite(test)
  site.harper.connections = [connection('node2', more)]
  site.harper.members.push({ name: 'node2', routes: [] })
  site.options.addresses = { node2: { host: '10.0.0.2', port: 9932 } }
  site.options.apiUrls = { node2: site.harper.url }
  return site
}

const texts = (steps: readonly { step: string; message: string }[], step: string) =>
  steps.filter((each) => each.step === step).map(({ message }) => message)

describe('a migration', { concurrency: true, timeout: 180_000 }, () => {
  it('writes a configuration with routes, subscriptions and the streams of HarperDB, and a manager opens it', async (test) => {
    const { migrate, configFile, directory } = await withNeighbour(test)
    const { steps } = await migrate({ hostKeys: (user) => ({ users: [user] }) })
    const written = parse(await readFile(configFile, 'utf8'))
    const { clustering } = written
    assert.deepEqual([written.rootPath, written.users], [join(directory, 'new'), ['cluster_user']])
    assert.equal(written.authentication, undefined, "HarperDB's other sections stay there")
    assert.deepEqual(
      [clustering.enabled, clustering.nodeName, clustering.compatibility, clustering.databaseLevel],
      [true, 'node1', 'harperdb4', false],
    )
    assert.deepEqual(clustering.hubServer.cluster.network.routes, [{ host: '10.0.0.2', port: 9932 }])
    assert.equal(clustering.leafServer.streams.path, join(directory, 'hdb', 'clustering', 'leaf'))
    assert.deepEqual(clustering.nodes, [
      { name: 'node2', subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }] },
    ])
    assert.match(texts(steps, 'file')[0]!, /continues the streams in .*hdb\/clustering\/leaf/)
    const network = new MemoryNetwork()
    test.after(() => network.close())
    const { host } = (await withNeighbour(test)).options
    const cluster = await ClusterManager.open({
      configFile,
      host: host!,
      mesh: network.mesh(),
      password: clusterPassword,
    })
    test.after(() => cluster.close())
    assert.deepEqual(cluster.manifest.nodes[0]!.name, 'node2')
  })

  it('notes that the streams of other nodes are read from before the migration on', async (test) => {
    const { migrate, directory } = await withNeighbour(test)
    const before = Date.now()
    await migrate({ overlap: 60_000 })
    const manifest = { ...emptyManifest, nodeName: 'node1', enabled: true }
    const clock = new HybridClock('node1', 60_000)
    const revisions = { timestamp: () => clock.timestamp(), resume: () => {} }
    const path = join(directory, 'new', 'clustering', 'revisions.json')
    // A manifest without the subscription removes it: read before that.
    const [row] = JSON.parse(await readFile(path, 'utf8')).nodes.node2
    assert.ok(row.includes('dog'))
    const nodes = [
      { name: 'node2', subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }] },
    ]
    const registers = await Registers.open(path, { ...manifest, nodes }, revisions, silentLogger)
    const start = registers.openStart({ node: 'node2', database: 'dev', table: 'dog' })
    const time = Date.parse(start!.startTime!)
    assert.ok(time >= before - 60_000 && time <= Date.now() - 60_000, start!.startTime)
    assert.deepEqual([...registers.changedWhileDown], [])
  })

  it('copies from migrated nodes the rows that differ, and nothing from nodes of HarperDB', async (test) => {
    const site = await withNeighbour(test, { system_info: { hdb_version: '1.0.0' } })
    site.harper.connections.push(connection('node3'))
    site.options.addresses = { ...site.options.addresses, node3: { host: '10.0.0.3', port: 9932 } }
    await site.migrate()
    const { nodes } = JSON.parse(await readFile(join(site.directory, 'new', 'clustering', 'revisions.json'), 'utf8'))
    const startOf = (node: string) => nodes[node][0].at(-1)
    assert.deepEqual([startOf('node2').copy, startOf('node3').copy], [true, undefined])
    assert.equal(startOf('node2').startTime, startOf('node3').startTime)
  })

  it('changes nothing in a dry run, and shows what it would write without the keys of the host', async (test) => {
    const { migrate, directory, host, harper } = await withNeighbour(test)
    harper.tables[0]!.put(1, { id: 1 }, ROW_TIME)
    const before = await readdir(directory)
    const { steps, isComplete } = await migrate({ dryRun: true, hostKeys: () => ({ users: ['secret of the user'] }) })
    assert.deepEqual([await readdir(directory), host.tables.size, isComplete], [before, 0, false])
    const { text } = steps.find(({ step }) => step === 'file')!.details as { text: string }
    assert.match(text, /10\.0\.0\.2/)
    const shown = JSON.stringify(steps)
    for (const secret of ['secret of the user', 'secret of the host', clusterPassword])
      assert.ok(!shown.includes(JSON.stringify(secret).slice(1, -1)), secret)
  })

  it('only reads from HarperDB', async (test) => {
    const { migrate, harper } = await withNeighbour(test)
    harper.tables[0]!.put(1, { id: 1 }, ROW_TIME)
    await migrate()
    await migrate({ writersStopped: true })
    const reading = /^(cluster_status|cluster_network|describe_(all|table)|search_by_(value|conditions|hash))$/
    assert.deepEqual(
      [...new Set(harper.operations)].filter((each) => !reading.test(each)),
      [],
    )
  })

  it('keeps a configuration that exists, and is complete when the writers have stopped', async (test) => {
    const { migrate, configFile, harper, host } = await withNeighbour(test)
    harper.tables[0]!.put(1, { id: 1 }, ROW_TIME)
    const first = await migrate()
    assert.equal(first.isComplete, false)
    assert.match(texts(first.steps, 'next')[0]!, /stop the programs that write to this node/)
    const written = await readFile(configFile, 'utf8')
    harper.tables[0]!.put(2, { id: 2 }, ROW_TIME + 1)
    const last = await migrate({ writersStopped: true, addresses: { node2: { host: '10.9.9.9', port: 1 } } })
    assert.equal(await readFile(configFile, 'utf8'), written)
    assert.match(texts(last.steps, 'file')[0]!, /exists and stays/)
    assert.equal(last.isComplete, true, JSON.stringify(last.steps))
    assert.match(texts(last.steps, 'next')[0]!, /stop HarperDB on this node now/)
    assert.deepEqual(
      last.compared.map(({ node, rows }) => [node, rows]),
      [
        ['HarperDB of this node', [2, 2]],
        ['node2', [2, 2]],
      ],
    )
    assert.equal(host.records('dev', 'dog').length, 2)
  })

  it('reports a neighbour with other rows, or without an answer', async (test) => {
    const { migrate, harper, options } = await withNeighbour(test)
    const other = await harperSite(test, { name: 'node2' })
    options.apiUrls = { node2: other.harper.url }
    for (const id of [1, 2, 3]) harper.tables[0]!.put(id, { id, name: 'Rex' }, ROW_TIME)
    for (const id of [2, 3, 4]) other.harper.tables[0]!.put(id, { id, name: id === 2 ? 'Max' : 'Rex' }, ROW_TIME)
    const { compared, isComplete } = await migrate({ writersStopped: true })
    const { missingHere, missingThere, different, examples } = compared.find(({ node }) => node === 'node2')!
    assert.deepEqual([missingHere, missingThere, different, examples.sort()], [1, 1, 1, ['1', '2', '4']])
    assert.equal(isComplete, false)
    await other.harper.stop()
    const { steps } = await migrate({ writersStopped: true })
    assert.match(texts(steps, 'compare').at(-1)!, /is not compared with node2: HarperDB does not answer/)
  })

  it('takes rows for equal that differ only by their times, or by null and absent attributes', async (test) => {
    const { migrate, harper, options } = await withNeighbour(test)
    const other = await harperSite(test, { name: 'node2', tables: [{ ...dogs, hasTimes: false }] })
    options.apiUrls = { node2: other.harper.url }
    harper.tables[0]!.put(1, { id: 1, name: 'Rex' }, ROW_TIME)
    harper.tables[0]!.put(2, { id: 2, age: 3 }, ROW_TIME)
    for (const record of [
      { id: 1, name: 'Rex' },
      { id: 2, age: 3 },
    ])
      other.harper.tables[0]!.put(record.id, record, ROW_TIME)
    const { compared, isComplete } = await migrate({ writersStopped: true })
    assert.equal(isComplete, true)
    for (const { digest } of compared) assert.equal(digest[0], digest[1])
  })

  it('does not report what neighbours wrote and deleted meanwhile', async (test) => {
    const { migrate, harper, options } = await withNeighbour(test)
    const other = await harperSite(test, { name: 'node2' })
    options.apiUrls = { node2: other.harper.url }
    for (const { tables } of [harper, other.harper]) {
      for (const id of [1, 2, 3]) tables[0]!.put(id, { id, name: 'Rex' }, ROW_TIME)
    }
    harper.beforeAnswer = ({ operation }) => {
      if (operation !== 'search_by_hash') return
      harper.beforeAnswer = undefined
      setTimeout(() => {
        for (const { tables } of [harper, other.harper]) {
          tables[0]!.put(1, { id: 1, name: 'Max' }, Date.now() + 5)
          tables[0]!.delete(2, Date.now() + 5)
          tables[0]!.put(4, { id: 4 }, Date.now() + 5)
        }
      }, 0)
    }
    const { compared, isComplete } = await migrate({ writersStopped: true })
    assert.deepEqual(
      compared.map(({ missingHere, missingThere, different }) => missingHere + missingThere + different),
      [0, 0],
    )
    assert.equal(compared.at(-1)!.changedMeanwhile, 3)
    assert.equal(isComplete, true)
  })

  it('leaves out tables without a primary key and subscriptions of names that cannot be replicated, and reports both', async (test) => {
    const tables = [dogs, { database: 'dev', table: 'keyless' }, { ...dogs, table: 'hot dog' }]
    const site = await harperSite(test, { tables })
    const subscription = { schema: 'dev', publish: true, subscribe: true }
    const subscriptions = ['dog', 'keyless', 'hot dog'].map((table) => ({ ...subscription, table }))
    site.harper.connections = [connection('node2', { subscriptions })]
    site.options.addresses = { node2: { host: '10.0.0.2', port: 9932 } }
    site.harper.tables[2]!.put(1, { id: 1 }, ROW_TIME)
    const { steps, plan } = await site.migrate({ apiUrls: { node2: site.harper.url } })
    assert.deepEqual(
      plan.nodes[0]!.subscriptions.map(({ table }) => table),
      ['dog'],
    )
    assert.deepEqual(texts(steps, 'tables').length, 2)
    assert.match(texts(steps, 'tables').join('\n'), /dev\.keyless is left out: it has no primary key/)
    assert.match(texts(steps, 'tables').join('\n'), /dev\.hot dog cannot be replicated, only its rows are imported/)
    assert.equal(site.host.records('dev', 'hot dog').length, 1)
  })
})

describe('a migration does not begin', { concurrency: true, timeout: 180_000 }, () => {
  const rejects = async (site: HarperSite, message: RegExp, code = 'migration_blocked') => {
    const before = await readdir(site.directory)
    await assert.rejects(site.migrate(), { code, message })
    assert.deepEqual([await readdir(site.directory), site.host.tables.size], [before, 0])
  }

  it('with a file that is missing, invalid or of another node', async (test) => {
    const site = await harperSite(test)
    site.options.harperConfigFile = join(site.directory, 'none.yaml')
    await rejects(site, /none\.yaml.*no such file/, 'config_rejected')
    site.options.harperConfigFile = site.harperFile
    const text = await readFile(site.harperFile, 'utf8')
    for (const [content, message, code] of [
      ['clustering:\n  enabled: [true\n', /line \d+, column \d+/, 'config_rejected'],
      [text.replace('port: 1\n', 'port: many\n'), /hubServer\.network\.port must be a port/, 'config_rejected'],
      [text.replace('nodeName: node1', 'nodeName: node7'), /is node node1, the file is that of node7/, undefined],
      [text.replace('enabled: true', 'enabled: false'), /no clustering that is enabled/, undefined],
      [text.replace(/user: .*/, 'user: null'), /clustering\.user is missing/, undefined],
    ] as const) {
      await writeFile(site.harperFile, content)
      await rejects(site, message, code)
    }
  })

  it('while clustering is disabled, or with nodes before HarperDB 4.3', async (test) => {
    const site = await withNeighbour(test, { system_info: { hdb_version: '4.2.8' } })
    await rejects(site, /node2 runs HarperDB 4\.2\.8: update it to 4\.3/)
    site.harper.isEnabled = false
    await rejects(site, /clustering is disabled/)
  })

  it('without the address of a node', async (test) => {
    const site = await withNeighbour(test)
    site.options.addresses = {}
    await rejects(site, /no address is known of node2/)
  })

  it('in the directory of HarperDB', async (test) => {
    const site = await withNeighbour(test)
    const options = { rootPath: join(site.directory, 'hdb') }
    await assert.rejects(site.migrate(options), { code: 'migration_blocked', message: /is the directory of HarperDB/ })
  })

  it('with a password that the hub rejects', async (test) => {
    const { harper: server, harperFile, options } = await withNeighbour(test)
    const { report } = createReport()
    const harper = await readConfiguration(harperFile, report)
    const logIn = async () => ({ outcome: 'rejected' as const, reason: "'Authorization Violation'" })
    const api = new HarperApi({ ...options.harper, url: server.url })
    await assert.rejects(planMigration({ harper, api, clusterPassword: 'wrong', report, logIn }), {
      code: 'migration_blocked',
      message: /127\.0\.0\.1:1 rejects the password of cluster user cluster_user/,
    })
  })
})

describe('routes', () => {
  const node2 = { node: 'node2', address: { host: '10.0.0.2', port: 9932 } }
  const inputs = { nodes: ['node2'], configured: [], ofMembers: [], hubs: [node2], given: {} }
  const resolve = async (host: string) => (host === 'two.example' ? ['10.0.0.2'] : [])

  it('lead to every node that the hub knows', async () => {
    const { routes, missing } = await planRoutes({ ...inputs, nodes: ['node2', 'node3'] })
    assert.deepEqual([routes, missing], [[node2.address], ['node3']])
  })

  it('keep the names of hosts, and configured routes', async () => {
    const named = { host: 'two.example', port: 9932 }
    for (const known of [{ configured: [named] }, { ofMembers: [{ host: 'two.example', port: 1 }, named] }])
      assert.deepEqual((await planRoutes({ ...inputs, ...known, resolve })).routes, [named])
    const other = { host: 'six.example', port: 9932 }
    const { routes } = await planRoutes({ ...inputs, configured: [other], resolve })
    assert.deepEqual(routes, [other, node2.address])
  })

  it('take the address of the operator first', async () => {
    const given = { node2: { host: 'other.example', port: 7 } }
    assert.deepEqual((await planRoutes({ ...inputs, given })).routes, [given.node2])
  })
})
