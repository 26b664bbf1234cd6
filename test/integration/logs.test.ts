// The log of a node on real servers names its versions, its ports and the user of a change.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Logger, OperationRequest } from '../../lib/index.ts'
import { eventually, MemoryHost, startCluster } from '../../lib/testing.ts'

type Line = { message: string; [field: string]: unknown }

test('a day on real servers', async (t) => {
  const lines: Line[] = []
  const record = (details: object, message: string) => void lines.push({ message, ...details })
  const logger: Logger = { debug() {}, info: record, warn: record, error: record }
  const dog = { database: 'dev', table: 'dog', primaryKey: 'id' }
  const cluster = await startCluster(2, {
    host: (name) => new MemoryHost({ tables: name === 'node1' ? [dog] : [] }),
    options: { logger },
  })
  t.after(() => cluster.close())
  const [one, two] = [cluster.node('node1'), cluster.node('node2')]
  const request: OperationRequest<'add_node'> = {
    operation: 'add_node',
    node_name: 'node2',
    subscriptions: [{ database: 'dev', table: 'dog', publish: true, subscribe: true }],
  }
  await one.cluster.execute(request, { superUser: true, username: 'anna' })
  for (let id = 0; id < 20; id++) await one.host.insert('dev', 'dog', { id })
  await cluster.converged()
  // A node that is read counts as up before its first heartbeat, which is what the log reports.
  const isUp = (node: string) => lines.some((line) => line.localNode === node && line.message === 'peer up')
  await eventually('both are up', () => isUp('node1') && isUp('node2'))
  await cluster.close()

  assert.ok(lines.every(({ localNode }) => localNode === 'node1' || localNode === 'node2'))
  const of = (node: string, message: string) =>
    lines.find((line) => line.localNode === node && line.message === message) ?? assert.fail(`${node}: ${message}`)
  for (const { name, port } of cluster.nodes) {
    const opened = of(name, 'cluster manager opened')
    assert.match(String(opened.natsServer), /^2\.\d+\.\d+$/)
    assert.equal((opened.ports as { cluster: number }).cluster, port)
    for (const message of ['mesh connected', 'peer up', 'node added', 'cluster manager closed']) of(name, message)
  }
  assert.deepEqual([of('node1', 'subscription added').user, of('node1', 'subscription added').cause], ['anna', 'api'])
  assert.equal(of('node2', 'subscription added').cause, 'peer')
  assert.equal(of('node2', 'table created').table, 'dog')
  assert.ok(lines.length < 40, lines.map(({ message }) => message).join('\n'))
  assert.ok(two.host.records('dev', 'dog').length === 20)
})
