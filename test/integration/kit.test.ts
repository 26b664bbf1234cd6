// What users of the package start with: a test cluster of real servers, and the demo without servers.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { startCluster } from '../../lib/testing.ts'
import { isRunning, serverPid } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'

const dog = { database: 'dev', table: 'dog' }

test('startCluster runs real servers, replicates, restarts a node, and removes everything on close', async (t) => {
  const cluster = await startCluster(3, { tables: [dog] })
  t.after(() => cluster.close())
  const [one, two, three] = cluster.nodes
  await Promise.all(cluster.nodes.map(({ name, host }) => host.insert('dev', 'dog', { id: name })))
  await cluster.converged()
  await three!.stop()
  await one!.host.update('dev', 'dog', { id: 'node2', name: 'Rex' })
  await two!.host.delete('dev', 'dog', 'node1')
  await three!.start()
  await cluster.converged()
  for (const { host } of cluster.nodes)
    assert.deepEqual(host.records('dev', 'dog'), [{ id: 'node2', name: 'Rex' }, { id: 'node3' }])
  const pids = await Promise.all(
    cluster.nodes.flatMap((node) => (['hub', 'leaf'] as const).map((server) => serverPid(node, server))),
  )
  assert.ok(pids.every((pid) => pid !== undefined))
  await cluster.close()
  for (const pid of pids) assert.equal(await isRunning(pid!), false)
  for (const { directory } of cluster.nodes) assert.equal(existsSync(directory), false)
})

test('the demo runs on an in-memory network if nats-server is missing', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [...programArguments('demo/demo.ts')], {
    env: { ...process.env, NATS_SERVER: '/nowhere/nats-server' },
    timeout: 60_000,
  })
  assert.match(stdout, /No nats-server found/)
  assert.match(stdout, /Success: three nodes replicated/)
})
