// TLS between nodes: which certificates are accepted, and replacement of certificates at run time.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { parse, stringify } from 'yaml'
import { Authority, type CertificateOptions, type TlsFiles } from '../support/authority.ts'
import { eventually, type NodeFiles, quiet, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'

const tables: [string, string][] = [['dev', 'dog']]
const HOUR = 3_600_000

const directoryOf = ({ directory }: NodeFiles) => join(directory, 'tls')

/** A node with a certificate of this authority. */
async function start(
  cluster: TestCluster,
  name: string,
  authority: Authority,
  options: { routes?: number[]; certificate?: CertificateOptions; tls?: object; prepared?: NodeFiles } = {},
): Promise<{ node: TestNode; files: TlsFiles; lines: string[] }> {
  const { routes = [], certificate = {}, tls = {} } = options
  const lines: string[] = []
  const note = (details: unknown, text?: string) => void lines.push(`${JSON.stringify(details)} ${text}`)
  const logger = { debug() {}, info: note, warn: note, error: note }
  const prepared = options.prepared ?? (await cluster.prepare(name, { routes }))
  const files = await authority.issue(directoryOf(prepared), name, certificate)
  const config = parse(await readFile(prepared.configFile, 'utf8'))
  config.clustering.hubServer.cluster.network.host = '127.0.0.1'
  // Relative to the configuration file.
  config.clustering.tls = {
    certificate: 'tls/certificate.pem',
    certificateAuthority: 'tls/authority.pem',
    privateKey: 'tls/key.pem',
    ...tls,
  }
  await writeFile(prepared.configFile, stringify(config))
  return { node: await cluster.open(prepared, { tables, options: { logger } }), files, lines }
}

const received = (node: TestNode, from: TestNode) => node.host.from(from.name, 'dog').map(({ id }) => id)
const write = (node: TestNode, id: string) => node.host.write(id, insert('dog', { id }))
const hubsOf = async (node: TestNode) => (await node.cluster.network({ timeout: 500 })).nodes.map(({ name }) => name)

/** Waits until this node reports a rejected connection. */
const refusal = (node: TestNode, reason: RegExp) =>
  eventually(
    () => `${node.name} says ${reason}: ${JSON.stringify(node.seen('connection:rejected'))}`,
    () => node.seen('connection:rejected').find((each) => reason.test(each.reason ?? '')),
  )

const said = ({ lines }: { lines: string[] }, text: RegExp, since = 0) =>
  eventually(
    () => `the log says ${text}: ${lines.slice(since).join('\n')}`,
    () => lines.slice(since).some((line) => text.test(line)),
  )

describe('with TLS', { concurrency: 2 }, () => {
  test('nodes of one authority replicate', async (t) => {
    const cluster = TestCluster.for(t)
    const authority = await Authority.create()
    const { node: node1 } = await start(cluster, 'node1', authority)
    const { node: node2 } = await start(cluster, 'node2', authority, { routes: [node1.ports.cluster] })
    await subscribe(node1, node2, { dog: 'both' })
    await Promise.all([write(node1, 'one'), write(node2, 'two')])
    await quiet([node1, node2])
    assert.deepEqual([received(node2, node1), received(node1, node2)], [['one'], ['two']])
  })

  test('a node without TLS is rejected', async (t) => {
    const cluster = TestCluster.for(t)
    const { node: node1 } = await start(cluster, 'node1', await Authority.create())
    await cluster.start('node2', { tables, routes: [node1.ports.cluster] })
    const { node } = await refusal(node1, /does not speak TLS/)
    assert.match(node, /^127\.0\.0\.1:\d+$/)
    assert.deepEqual(await hubsOf(node1), ['node1'])
  })

  test('a node whose certificate expires while it runs is rejected afterwards, and reports it', async (t) => {
    const cluster = TestCluster.for(t)
    const authority = await Authority.create()
    const { node: node1 } = await start(cluster, 'node1', authority)
    const notAfter = new Date(Date.now() + 8_000)
    const node2 = await start(cluster, 'node2', authority, { routes: [node1.ports.cluster], certificate: { notAfter } })
    await eventually('they are linked', async () => (await hubsOf(node1)).length === 2)
    await said(node2, /certificate has expired on/)
    // For new connections only.
    await node2.node.kill('hub')
    await refusal(node1, /has expired or is not yet valid/)
    assert.deepEqual(await hubsOf(node1), ['node1'])
  })

  test('nodes of different authorities reject each other', async (t) => {
    const cluster = TestCluster.for(t)
    const { node: node1 } = await start(cluster, 'node1', await Authority.create())
    const stranger = await start(cluster, 'node2', await Authority.create('another'), { routes: [node1.ports.cluster] })
    await refusal(node1, /rejects the local certificate/)
    await said(stranger, /signed by an unknown authority/)
    assert.deepEqual(await hubsOf(node1), ['node1'])
  })

  test('`insecure` accepts any server, and no additional client', async (t) => {
    const cluster = TestCluster.for(t)
    const { node: node1 } = await start(cluster, 'node1', await Authority.create())
    const tls = { insecure: true }
    const routes = [node1.ports.cluster]
    await start(cluster, 'node2', await Authority.create('another'), { routes, tls })
    await refusal(node1, /no certificate of a known authority/)
    assert.deepEqual(await hubsOf(node1), ['node1'])
  })

  test('a server certificate for another name is rejected unless `insecure`', async (t) => {
    const cluster = TestCluster.for(t)
    const authority = await Authority.create()
    const certificate = { names: ['192.0.2.1'] }
    // It must still reach the local leafnode port.
    const { node: node1 } = await start(cluster, 'node1', authority, { certificate, tls: { insecure: true } })
    const routes = [node1.ports.cluster]
    const node2 = await start(cluster, 'node2', authority, { routes })
    await said(node2, /for another name/)
    assert.deepEqual(await hubsOf(node2.node), ['node2'])
    const { node: node3, lines } = await start(cluster, 'node3', authority, { routes, tls: { insecure: true } })
    await eventually('it is linked', async () => (await hubsOf(node3)).includes('node1'))
    const unverified = lines.filter((line) => line.includes('will not be verified'))
    assert.deepEqual(unverified, [], 'the warning of its server is no rejection')
  })

  test('open rejects invalid files with their configuration key', async (t) => {
    const cluster = TestCluster.for(t)
    const authority = await Authority.create()
    const cases: [tls: object, error: { code: string; message: RegExp }][] = [
      [
        { certificate: 'tls/none.pem' },
        { code: 'tls_invalid', message: /clustering\.tls\.certificate: .*none\.pem .*ENOENT/ },
      ],
      [{ certificate: 'tls/key.pem' }, { code: 'tls_invalid', message: /clustering\.tls\.certificate: / }],
      [{ privateKey: 'tls/certificate.pem' }, { code: 'tls_invalid', message: /clustering\.tls\.privateKey: / }],
      [{ privateKey: 'other/key.pem' }, { code: 'tls_invalid', message: /does not belong to the certificate/ }],
      [{ privateKey: null }, { code: 'config_rejected', message: /clustering\.tls\.privateKey is missing/ }],
      [{ certificateAuthority: null }, { code: 'config_rejected', message: /certificateAuthority is missing/ }],
    ]
    const issues: [certificate: CertificateOptions, message: RegExp][] = [
      [{ notAfter: new Date(Date.now() - HOUR) }, /it has expired on/],
      [{ notBefore: new Date(Date.now() + HOUR) }, /it is not valid before/],
      [{ usage: { serverAuth: true } }, /does not include clients \(clientAuth\)/],
    ]
    for (const [certificate, message] of issues)
      await assert.rejects(start(cluster, 'node1', authority, { certificate }), { code: 'tls_invalid', message })
    for (const [tls, error] of cases) {
      const files = await cluster.prepare('node1')
      await authority.issue(join(files.directory, 'other'), 'other')
      await assert.rejects(start(cluster, 'node1', authority, { tls, prepared: files }), error)
    }
  })
})

describe('replaced certificates', () => {
  test('are used without a restart, and nothing is lost', async (t) => {
    const cluster = TestCluster.for(t)
    const [before, after] = [await Authority.create('before'), await Authority.create('after')]
    const nodes = [await start(cluster, 'node1', before)]
    const routes = [nodes[0]!.node.ports.cluster]
    nodes.push(await start(cluster, 'node2', before, { routes }))
    const [node1, node2] = nodes.map(({ node }) => node) as [TestNode, TestNode]
    await subscribe(node1, node2, { dog: 'both' })
    const pids = await Promise.all([node1.pid('hub'), node1.pid('leaf'), node2.pid('hub'), node2.pid('leaf')])
    let written = 0
    const writing = { on: true }
    const writer = (async () => {
      while (writing.on) {
        await write(node1, `w${written++}`)
        await delay(2)
      }
    })()
    /** Changes every node's files and waits until all nodes use them. */
    const replace = async (how: (files: TlsFiles, node: TestNode) => Promise<unknown>) => {
      const since = nodes.map(({ lines }) => lines.length)
      for (const { files, node } of nodes) await how(files, node)
      for (const [index, node] of nodes.entries()) await said(node, /certificates replaced/, since[index])
    }
    await replace(({ certificateAuthority }) => writeFile(certificateAuthority, `${before.pem}${after.pem}`))
    await replace((_, node) => after.issue(directoryOf(node), node.name, { trusted: `${before.pem}${after.pem}` }))
    await replace(({ certificateAuthority }) => writeFile(certificateAuthority, after.pem))
    // They apply to new links.
    const { node: node3 } = await start(cluster, 'node3', after, { routes })
    await eventually('the new one is linked', async () => (await hubsOf(node3)).length === 3)
    await start(cluster, 'node4', before, { routes })
    await refusal(node1, /rejects the local certificate/)
    assert.deepEqual(
      await Promise.all([node1.pid('hub'), node1.pid('leaf'), node2.pid('hub'), node2.pid('leaf')]),
      pids,
    )
    const last = `w${written}`
    await eventually('what is written with the new ones arrives', () => received(node2, node1).includes(last))
    await node1.kill('hub')
    await write(node2, 'back')
    writing.on = false
    await writer
    await quiet([node1, node2])
    assert.deepEqual(
      received(node2, node1),
      Array.from({ length: written }, (_, index) => `w${index}`),
    )
    assert.deepEqual(received(node1, node2), ['back'])
  })

  test('are ignored when they are invalid, also by servers that start again', async (t) => {
    const cluster = TestCluster.for(t)
    const authority = await Authority.create()
    const node1 = await start(cluster, 'node1', authority)
    const { node, files } = node1
    const good = await readFile(files.certificate, 'utf8')
    await writeFile(files.certificate, good.slice(0, 200))
    await said(node1, /keeping the previous ones: clustering\.tls\.certificate/)
    await authority.issue(directoryOf(node), 'node1', { usage: { serverAuth: true } })
    await said(node1, /keeping the previous ones: .*clientAuth/)
    const reasons = node.seen('certificates:rejected').map(({ reason }) => reason)
    assert.deepEqual([reasons.length, node.seen('certificates:replaced').length], [2, 0])
    assert.match(reasons[1]!, /does not include clients/)
    for (const server of ['hub', 'leaf'] as const) await node.kill(server)
    const { node: node2 } = await start(cluster, 'node2', authority, { routes: [node.ports.cluster] })
    await eventually('the previous ones are in use', async () => (await hubsOf(node2)).length === 2)
    await eventually('the leaf is back', () => node.cluster.meshState === 'connected')
    await write(node, 'one')
    await authority.issue(directoryOf(node), 'node1')
    await eventually('new ones are in use', () => node.seen('certificates:replaced').length === 1)
  })
})
