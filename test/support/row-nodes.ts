// Nodes that exchange rows on a network in memory, without subscriptions that run.

import type { TestContext } from 'node:test'
import { RowExchange } from '../../lib/cluster/row-exchange.ts'
import { writesOfRow } from '../../lib/host/copied-row.ts'
import type { Host, KeyedRow, RemoteTable, RowSelection, TableName } from '../../lib/host/host.ts'
import { makeManifest } from '../../lib/manifest/manifest.ts'
import type { Subscription } from '../../lib/manifest/subscription.ts'
import type { Mesh } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import type { TableStatus } from '../../lib/replication/copy/row-messages.ts'
import type { MemoryNetwork } from '../../lib/testing.ts'

export type RowNode = { name: string; host: Host; mesh: Mesh; peers: Peers; rows: RowExchange }

export type RowNodeOptions = {
  host: Host
  /** By node. */
  subscriptions?: Record<string, readonly Subscription[]>
  /** Default: nothing was published, and nothing is subscribed. */
  status?: (table: TableName) => TableStatus | Promise<TableStatus>
}

const nothingPublished: TableStatus = { epoch: 'e', sequence: 0, isPublished: true, sources: [] }

/** As a subscription does it, without one. */
async function applyRows(host: Host, source: RemoteTable, rows: readonly KeyedRow[]): Promise<void> {
  const { primaryKey } = (await host.describe()).find(({ table }) => table === source.table)!
  const origin = { node: source.node, relayedBy: [] }
  const transactions = rows.flatMap((row) =>
    writesOfRow({ ...source, primaryKey }, row).map(({ timestamp, write }) => ({
      id: `${timestamp} ${String(row.key)}`,
      timestamp,
      writes: [write],
      origin,
      sequence: 1,
      index: 1,
    })),
  )
  await host.apply({ source, transactions, checkpoint: { epoch: '', sequence: 0 }, isCopy: true })
}

const noRoutes = { hub: [], leaf: [] }
const noListener = { state() {}, rejected() {}, linked() {} }
const peerListener = { up() {}, down() {}, returned() {}, rejected() {}, superseded() {}, streams() {}, time() {} }

/** A node whose manifest holds these subscriptions with other nodes. It ends with the test. */
export async function startRowNode(
  test: Pick<TestContext, 'after'>,
  network: MemoryNetwork,
  name: string,
  { host, subscriptions = {}, status = () => nothingPublished }: RowNodeOptions,
): Promise<RowNode> {
  const mesh = network.mesh(name)
  await mesh.open(name, noRoutes, noListener)
  const nodes = Object.entries(subscriptions).map(([node, tables]) => ({ name: node, subscriptions: tables }))
  const manifest = makeManifest({ nodeName: name, enabled: true, nodes })
  const described = new Map<string, boolean>()
  const rows = new RowExchange({
    host,
    store: { manifest, listen() {} },
    status: async (table) => ({ ...(await status(table)), horizon: await host.horizon?.(table) }),
    applyRows: (source, found) => applyRows(host, source, found),
    progress: () => () => {},
    verified: () => {},
    timers: mesh.timers,
    peers: () => peers,
    tables: () => ({
      servesRows: (node) => described.get(node),
      refresh: async (node) => {
        const [table] = await peers.describeTables(node, { operation: 'describe_all' })
        if (table) described.set(node, table.servesRows)
      },
    }),
  })
  const peers: Peers = new Peers({
    mesh,
    host,
    node: name,
    clusteringPort: 0,
    operationsApiPort: undefined,
    logger: silentLogger,
    requestTimeout: 5_000,
    negotiate: async () => undefined,
    answerRows: (node, request) => rows.answer(node, request),
    positions: () => [],
    listener: peerListener,
  })
  peers.start()
  test.after(async () => {
    peers.close()
    await mesh.close()
  })
  return { name, host, mesh, peers, rows }
}

/** The host, with `work` in place of its `readRows`. */
export function withReadRows(
  host: Host,
  work: (
    table: TableName,
    selection: RowSelection,
    original: NonNullable<Host['readRows']>,
  ) => ReturnType<NonNullable<Host['readRows']>>,
): Host {
  const original = host.readRows!.bind(host)
  return Object.assign(Object.create(host) as Host, {
    readRows: (table: TableName, selection: RowSelection) => work(table, selection, original),
  })
}
