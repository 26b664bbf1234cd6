// Two nodes on one directory with real servers: the second is rejected before it touches the servers and the streams of the first.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { stringify } from 'yaml'
import { clusteringOf, freePorts, isRunning, type ServerKind, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { programArguments } from '../support/program.ts'

const tables: [string, string][] = [['dev', 'dog']]
const kinds = ['hub', 'leaf'] as const satisfies ServerKind[]
const namespaces = ['unshare', '--net', '--pid', '--fork', '--mount-proc', '--kill-child']

/** The node still has the servers of before, and they take writes. */
async function assertUntouched(node: TestNode, pids: readonly number[]): Promise<void> {
  for (const pid of pids) assert.equal(await isRunning(pid), true)
  assert.deepEqual(await Promise.all(kinds.map((kind) => node.pid(kind))), pids)
  await node.host.write(`after-${performance.now()}`, insert('dog', { id: 'a' }))
}

async function secondFile(node: TestNode, path: string, more: object): Promise<string> {
  const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0] = await freePorts(4)
  const clustering = { ...clusteringOf('node2', { cluster, leafNodes, hub, leaf }, [node.ports.cluster]), ...more }
  await writeFile(path, stringify({ clustering }))
  return path
}

test('a second file in the directory is rejected', async (t) => {
  const cluster = TestCluster.for(t)
  const node = await cluster.start('node1', { tables })
  const pids = await Promise.all(kinds.map((kind) => node.pid(kind)))
  const configFile = await secondFile(node, join(node.directory, 'second.yaml'), {})
  const message = new RegExp(`in use by another cluster manager: process ${process.pid} on host .*${node.configFile}$`)
  await assert.rejects(cluster.open({ ...node, configFile }), { code: 'directory_in_use', statusCode: 409, message })
  await assertUntouched(node, pids)
})

test('a second node with the same directory of streams is rejected', async (t) => {
  const cluster = TestCluster.for(t)
  const node = await cluster.start('node1', { tables })
  const pids = await Promise.all(kinds.map((kind) => node.pid(kind)))
  const files = await cluster.prepare('node2')
  const path = join(node.directory, 'clustering', 'leaf')
  await secondFile(node, files.configFile, { leafServer: { network: { port: files.ports.leaf }, streams: { path } } })
  await assert.rejects(cluster.open(files), { code: 'directory_in_use' })
  await assertUntouched(node, pids)
})

test('a second container on the same volume is rejected', async (t) => {
  try {
    execFileSync(namespaces[0]!, [...namespaces.slice(1), 'true'], { stdio: 'ignore' })
  } catch {
    return t.skip('namespaces cannot be created here')
  }
  const cluster = TestCluster.for(t)
  const node = await cluster.start('node1', { tables })
  const pids = await Promise.all(kinds.map((kind) => node.pid(kind)))
  const argument = JSON.stringify({ configFile: node.configFile, tables })
  const command = [...namespaces, process.execPath, ...programArguments('support/memory-node.ts'), argument]
  const child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'ignore', 'pipe'] })
  let output = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output += text
  })
  const [code] = await once(child, 'close')
  assert.notEqual(code, 0)
  assert.match(output, /directory_in_use/)
  await assertUntouched(node, pids)
})
