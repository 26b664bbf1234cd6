// The headers of the reference host: a write waits for other nodes, and a read on another node waits for the write.

import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type ClusterError, ClusterManager } from '../../lib/index.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { eventually, MemoryNetwork } from '../../lib/testing.ts'
import { type Node, startNode } from '../host/node.ts'

const authorization = `Basic ${Buffer.from('admin:secret').toString('base64')}`
const network = new MemoryNetwork()
const nodes: Node[] = []
let directory = ''

const yaml = (name: string) => `rootPath: .
operationsApi: { network: { port: 0 } }
users:
  - { username: admin, password: secret, role: super_user }
  - { username: mesh, password: mesh-secret, role: cluster_user }
clustering: { enabled: true, nodeName: ${name}, user: mesh }
`

async function send({ url }: Node, body: object, headers: Record<string, string> = {}, signal?: AbortSignal) {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization, ...headers },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  })
  const token = response.headers.get('x-write-token')
  return { status: response.status, body: (await response.json()) as Record<string, unknown>, token }
}

const dog = { database: 'dev', table: 'dog' }
const write = (node: Node, id: string, wait?: string, operation = 'upsert') =>
  send(node, { operation, ...dog, records: [{ id }] }, wait === undefined ? {} : { 'x-replicate-wait': wait })
const read = (node: Node, id: string, token: string) =>
  send(node, { operation: 'search_by_id', ...dog, ids: [id] }, { 'x-read-after': token })

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'host-'))
  for (const name of ['node1', 'node2', 'node3']) {
    const file = join(await mkdtemp(join(directory, `${name}-`)), 'config.yaml')
    await writeFile(file, yaml(name))
    nodes.push(await startNode(file, silentLogger, { mesh: network.mesh(name) }))
  }
  await send(nodes[0]!, { operation: 'create_table', ...dog, primary_key: 'id' })
  for (const node of ['node2', 'node3'])
    await eventually(`${node} subscribes`, async () => {
      const subscriptions = [{ ...dog, publish: true, subscribe: true }]
      return (await send(nodes[0]!, { operation: 'add_node', node_name: node, subscriptions })).status === 200
    })
})
after(async () => {
  for (const node of nodes) await node.close()
  await network.close()
  await rm(directory, { recursive: true, force: true })
})

describe('the reference host', { timeout: 30_000 }, () => {
  test('answers a write when so many nodes, or those, have it, with a token', async () => {
    for (const [id, wait] of [
      ['two nodes', '2'],
      ['by name', 'node2, node3'],
    ] as const) {
      const { status, body, token } = await write(nodes[0]!, id, wait)
      assert.deepEqual([status, body.upserted_hashes], [200, [id]])
      for (const node of nodes) assert.deepEqual(node.database.get('dev', 'dog', id)?.id, id)
      assert.match(token!, /^[\w-]{20,}$/)
    }
  })

  test('lets another node read what was written, with the token of a write that waited for no node', async () => {
    network.delay('node1', 'node2', 30)
    for (let at = 0; at < 10; at++) {
      const { token } = await write(nodes[0]!, `read ${at}`, '0')
      const { status, body } = await read(nodes[1]!, `read ${at}`, token!)
      assert.deepEqual([status, (body as unknown as { id: string }[]).map(({ id }) => id)], [200, [`read ${at}`]])
    }
    network.delay('node1', 'node2', 0)
  })

  test('does not wait without the header, for reads, and for writes without an effect', async () => {
    assert.equal((await write(nodes[0]!, 'plain')).token, null)
    const repeated = await write(nodes[0]!, 'plain', '2', 'insert')
    assert.deepEqual([repeated.status, repeated.body.skipped_hashes, repeated.token], [200, ['plain'], null])
    const answer = await send(
      nodes[0]!,
      { operation: 'search_by_id', ...dog, ids: ['plain'] },
      { 'x-replicate-wait': '2' },
    )
    assert.deepEqual([answer.status, answer.token], [200, null])
  })

  test('answers with what was written, its token and the error when it cannot wait for so many nodes', async () => {
    const { status, body, token } = await write(nodes[0]!, 'four', '4')
    assert.deepEqual([status, body.upserted_hashes], [409, ['four']])
    assert.match(String(body.error), /2 nodes subscribe to each of its tables, not 4/)
    assert.deepEqual((await read(nodes[1]!, 'four', token!)).status, 200)
  })

  test('refuses headers that it cannot read, before anything is written', async () => {
    for (const wait of ['', '-1', '1.5', 'node2,', ',']) {
      const { status, body } = await write(nodes[0]!, 'refused', wait)
      assert.deepEqual([status, Object.keys(body)], [400, ['error']], wait)
    }
    assert.equal(nodes[0]!.database.get('dev', 'dog', 'refused'), undefined)
    assert.equal((await read(nodes[1]!, 'refused', 'no token')).status, 400)
  })

  test('stops waiting when the client has gone', async () => {
    network.cut('node1', 'node2', { silent: true })
    const { token } = await write(nodes[0]!, 'abandoned', '0')
    const { cluster } = nodes[1]!
    const outcome = new Promise<unknown>((resolve) => {
      cluster.caughtUp = (...args) => {
        const waiting = ClusterManager.prototype.caughtUp.apply(cluster, args)
        waiting.catch(resolve)
        client.abort()
        return waiting
      }
    })
    const client = new AbortController()
    const search = { operation: 'search_by_id', ...dog, ids: [] }
    await assert.rejects(send(nodes[1]!, search, { 'x-read-after': token! }, client.signal), { name: 'AbortError' })
    assert.equal(((await outcome) as ClusterError).code, 'aborted')
    network.heal()
  })
})
