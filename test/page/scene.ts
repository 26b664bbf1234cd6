// A cluster in memory and the status page of its first node in a browser.

import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import type { ClusterView } from '../../lib/index.ts'
import { statusPage } from '../../lib/status-page.ts'
import { type ClusterNode, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'

export const tables = ['cat', 'dog', 'owner'].map((table) => ({ database: 'dev', table }))

export type Site = { url: string; server: Server; close(): void }

/** Serves the page of a view until the test ends. */
export async function serve(t: Pick<TestContext, 'after'>, view: ClusterView): Promise<Site> {
  const page = statusPage(view, { path: '/status' })
  const server = createServer((request, response) => page(request, response))
  const url = await listen(t, server)
  const close = () => {
    page.close()
    server.closeAllConnections()
    server.close()
  }
  t.after(close)
  return { url: `${url}status/`, server, close }
}

/** The address of the server, which ends with the test. */
export async function listen(t: Pick<TestContext, 'after'>, server: Server): Promise<string> {
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

/** A tab at this address. The test fails when the page throws, logs an error or asks another server for something. */
export async function openTab(
  t: Pick<TestContext, 'after'>,
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<{ tab: Page; faults: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, ...options })
  t.after(() => context.close())
  const tab = await context.newPage()
  const faults: string[] = []
  tab.on('pageerror', (error) => faults.push(String(error)))
  tab.on('console', (message) => {
    if (
      message.type() === 'error' &&
      !/ERR_(?:CONNECTION|INCOMPLETE|EMPTY)|can’t establish a connection|was interrupted while/.test(message.text())
    )
      faults.push(message.text())
  })
  tab.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) faults.push(`request to ${request.url()}`)
  })
  await tab.goto(url)
  await tab.getByText('● live', { exact: true }).first().waitFor()
  return { tab, faults }
}

export type Scene = {
  network: MemoryNetwork
  nodes: readonly ClusterNode[]
  node(name: string): ClusterNode
  site: Site
}

/** Nodes that replicate three tables in every direction. `readRows`: gaps can be repaired. `unsubscribed`: tables that they have as well. */
export async function openScene(
  t: Pick<TestContext, 'after'>,
  count: number,
  { readRows = true, unsubscribed = [] }: { readRows?: boolean; unsubscribed?: readonly string[] } = {},
): Promise<Scene> {
  const network = new MemoryNetwork()
  const existing = [...tables, ...unsubscribed.map((table) => ({ database: 'dev', table }))]
  const cluster = await startCluster(count, {
    network,
    tables,
    host: () => new MemoryHost({ tables: existing, readRows }),
  })
  t.after(async () => {
    await cluster.close()
    await network.close()
  })
  const site = await serve(t, cluster.node('node1').cluster.view)
  return { network, nodes: cluster.nodes, node: (name) => cluster.node(name), site }
}

/** Every node writes to every table until the returned function is called. */
export function keepWriting(nodes: readonly ClusterNode[], perSecond: number): () => void {
  let count = 0
  const timer = setInterval(() => {
    for (const { name, host, isRunning } of nodes)
      if (isRunning)
        // A node whose servers are away keeps it in its outbox.
        for (const { database, table } of tables)
          host.insert(database, table, { id: `${name} ${count++}` }).catch(() => {})
  }, 1_000 / perSecond)
  return () => clearInterval(timer)
}
