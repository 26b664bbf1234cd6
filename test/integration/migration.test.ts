// A rolling migration of three simulated nodes of HarperDB to the reference host, with writes under way: no row is lost.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { compareNodes, migrate } from '../../lib/migrate.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Database } from '../host/database.ts'
import { LmdbHost } from '../host/lmdb-host.ts'
import { type Node, startNode } from '../host/node.ts'
import { clusterPassword, eventually, temporaryDirectory } from '../support/cluster.ts'
import { HarperClusterNode } from '../support/harper-cluster-node.ts'
import { harperLogin } from '../support/harper-http.ts'
import { isLong } from '../support/long.ts'

const NAMES = ['node1', 'node2', 'node3']
/** Rows that each node has before the migration. */
const FIRST_ROWS = isLong ? 5_000 : 100
/** A request for messages that was lost on the way to HarperDB is noticed after 11 s. */
const MAX_WAIT_MS = 30_000
const WRITE_INTERVAL_MS = isLong ? 2 : 25

/** One node of the cluster, before and after its migration. */
class MigratingNode {
  readonly harper: HarperClusterNode
  node: Node | undefined
  /** The rows that the node wrote and that must be everywhere at the end: by key, the value. */
  readonly expected = new Map<string, number | undefined>()
  #writing: Promise<void> | undefined
  #stopped = false
  #count = 0

  constructor(harper: HarperClusterNode) {
    this.harper = harper
  }

  get directory(): string {
    return join(this.harper.directory, '..', 'new')
  }
  get url(): string {
    return this.node?.url ?? this.harper.http.url
  }

  /** Inserts, updates and deletes, each of its own rows. */
  async write(): Promise<void> {
    const count = ++this.#count
    const id = `${this.harper.name}-${count}`
    await this.#put(id, count)
    if (count % 5 === 0) await this.#put(`${this.harper.name}-${count - 4}`, -count)
    if (count % 7 === 0) await this.#delete(`${this.harper.name}-${count - 6}`)
  }

  async #put(id: string, value: number): Promise<void> {
    const record = { id, value }
    if (this.node) await this.#operation({ operation: 'upsert', records: [record] })
    else await this.harper.write({ operation: 'upsert', table: 'dog', id, record })
    this.expected.set(id, value)
  }

  async #delete(id: string): Promise<void> {
    if (this.node) await this.#operation({ operation: 'delete', ids: [id] })
    else await this.harper.write({ operation: 'delete', table: 'dog', id })
    this.expected.set(id, undefined)
  }

  async #operation(body: object): Promise<void> {
    const { username, password } = harperLogin
    const authorization = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
    const response = await fetch(this.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization },
      body: JSON.stringify({ database: 'dev', table: 'dog', ...body }),
    })
    assert.equal(response.status, 200, await response.text())
  }

  startWriting(): void {
    this.#stopped = false
    this.#writing = (async () => {
      while (!this.#stopped) {
        await this.write()
        await delay(WRITE_INTERVAL_MS)
      }
    })()
  }

  async stopWriting(): Promise<void> {
    this.#stopped = true
    await this.#writing
  }

  /** The migration of this node as an operator does it. */
  async migrate(others: readonly MigratingNode[]): Promise<void> {
    await this.#pass(others, false)
    await this.stopWriting()
    // Rows may be on their way from a node that is read slowly.
    for (const began = Date.now(); ; ) {
      const { isComplete, steps } = await this.#pass(others, true)
      if (isComplete) break
      const problems = steps
        .filter(({ state }) => state === 'problem')
        .map(({ message, details }) => `${message}: ${JSON.stringify(details)}`)
      assert.ok(Date.now() - began < MAX_WAIT_MS, `${this.harper.name}: ${problems.join('\n')}`)
    }
    await this.harper.stop()
    this.node = await startNode(join(this.directory, 'config.yaml'), silentLogger)
    this.startWriting()
    await this.write()
    const last = [...this.expected.keys()].at(-1)!
    // Nodes of HarperDB go on where they were. Their clients take some seconds until they request messages again; a restart is sooner.
    for (const { node, harper } of others) {
      if (node) continue
      if (!isLong) await harper.subscribe(this.harper.name)
      await eventually(
        () => {
          const own = [...this.expected.keys()].filter((id) => harper.rows.get(id) !== undefined)
          return `${harper.name} reads from ${this.harper.name}: it has ${own.length} of ${this.expected.size} rows, not ${last}`
        },
        () => harper.rows.get(last) !== undefined,
        60_000,
      )
    }
  }

  async #pass(others: readonly MigratingNode[], writersStopped: boolean) {
    const { harper, directory } = this
    const database = await Database.open(join(directory, 'database'))
    try {
      const { username, password } = harperLogin
      const users = [
        { username, password, role: 'super_user' },
        { username: 'cluster_user', password: clusterPassword, role: 'cluster_user' },
      ]
      return await migrate({
        harperConfigFile: harper.configFile,
        harper: harperLogin,
        clusterPassword,
        configFile: join(directory, 'config.yaml'),
        rootPath: directory,
        host: new LmdbHost(database, '1.0.0'),
        hostKeys: () => ({ users }),
        apiUrls: Object.fromEntries(others.map((each) => [each.harper.name, each.url])),
        writersStopped,
        settle: 100,
      })
    } finally {
      await database.close()
    }
  }
}

test('three nodes migrate one after the other while all write, and no row is lost', { timeout: 300_000 }, async (t) => {
  const [directory, remove] = await temporaryDirectory()
  const nodes: MigratingNode[] = []
  t.after(async () => {
    for (const each of nodes) {
      await each.stopWriting().catch(() => {})
      await each.node?.close()
      await each.harper.stop()
    }
    await remove()
  })
  for (const name of NAMES) nodes.push(new MigratingNode(await HarperClusterNode.create(t, directory, name)))
  const all = nodes.map(({ harper }) => harper)
  // Nodes 2 and 3 learn of each other from node 1.
  for (const harper of all)
    await harper.start(
      t,
      harper === all[0] ? [] : [all[0]!],
      all.filter((each) => each !== harper),
    )
  for (const harper of all) for (const other of all) if (other !== harper) await harper.subscribe(other.name)
  for (const node of nodes) {
    for (let count = 0; count < FIRST_ROWS; count++) await node.write()
    node.startWriting()
  }
  for (const node of nodes) await node.migrate(nodes.filter((each) => each !== node))
  for (const node of nodes) await node.stopWriting()

  const expected = new Map(nodes.flatMap((node) => [...node.expected]))
  for (const { node, harper } of nodes)
    await eventually(
      () => `${harper.name} has all rows: ${differences(node!, expected)}`,
      () => differences(node!, expected).length === 0,
      30_000,
    )
  const login = (node: MigratingNode) => ({ ...harperLogin, url: node.url })
  for (const other of nodes.slice(1)) {
    const [compared] = await compareNodes({ here: login(nodes[0]!), there: login(other), settle: 100 })
    const { rows, digest } = compared!
    assert.equal(rows[0], rows[1])
    assert.equal(digest[0], digest[1])
  }
})

/** The first keys whose row is missing, wrong, or back after its delete. */
function differences({ database }: Node, expected: ReadonlyMap<string, number | undefined>): string[] {
  const found: string[] = []
  for (const [id, value] of expected) {
    const stored = database.get('dev', 'dog', id)?.value
    if (stored !== value) found.push(`${id}: ${stored} instead of ${value}`)
    if (found.length === 5) break
  }
  return found
}
