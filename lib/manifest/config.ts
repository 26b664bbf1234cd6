// The configuration file's content as values: settings and manifest, out of the tree that the YAML gives.

import { type ConfigNode, kinds } from './config-node.ts'
import {
  emptyManifest,
  type Manifest,
  type ManifestNode,
  makeManifest,
  type Route,
  routeKey,
  type Subscription,
  tableKey,
} from './manifest.ts'
import { readSettings, type Settings } from './settings.ts'
import { readFields } from './subscription.ts'

export type Config = { readonly manifest: Manifest; readonly settings: Settings }

export const hubRoutesPath = 'clustering.hubServer.cluster.network.routes'
export const leafRoutesPath = 'clustering.leafServer.network.routes'
export const nodesPath = 'clustering.nodes'

function readRoutes(list: ConfigNode): Route[] {
  // Of duplicates the first counts: HarperDB's own files may hold some.
  const routes = new Map<string, Route>()
  for (const item of list.items()) {
    const host = item.at('host').require(kinds.host)
    const port = item.at('port').require(kinds.port)
    if (host === undefined || port === undefined) continue
    const route = { host, port }
    if (!routes.has(routeKey(route))) routes.set(routeKey(route), route)
  }
  return [...routes.values()]
}

function readSubscriptions(list: ConfigNode): Subscription[] {
  const subscriptions: Subscription[] = []
  const named = new Set<string>()
  for (const item of list.items()) {
    const database = item.at('database').require(kinds.token)
    const table = item.at('table').require(kinds.token)
    const fields = readFields(item)
    if (database === undefined || table === undefined) continue
    const key = tableKey({ database, table })
    if (named.has(key)) item.addFault(`names the table '${database}.${table}' a second time`)
    named.add(key)
    if (fields) subscriptions.push({ database, table, ...fields })
  }
  return subscriptions
}

function readNodes(list: ConfigNode, localName: string): ManifestNode[] {
  const nodes = new Map<string, ManifestNode>()
  for (const item of list.items()) {
    const name = item.at('name').require(kinds.nodeName)
    const subscriptions = readSubscriptions(item.at('subscriptions'))
    if (name === undefined) continue
    if (name === localName) item.at('name').addFault(`must not be this node's own name, '${name}'`)
    if (nodes.has(name)) item.at('name').addFault(`names the node '${name}' a second time`)
    nodes.set(name, { name, subscriptions })
  }
  return [...nodes.values()]
}

/** The whole file; what is wrong is added to the faults of `root`, and then the result means nothing. */
export function readConfig(root: ConfigNode): Config {
  const clustering = root.at('clustering')
  const settings = readSettings(root)
  // A half-saved file is valid YAML too: it must not look like one that takes everything away.
  if (clustering.unset) {
    clustering.addFault("the section 'clustering' is missing; for a node without clustering it says `enabled: false`")
    return { manifest: emptyManifest, settings }
  }
  const nodeName = clustering.at('nodeName').read(kinds.nodeName) ?? ''
  const manifest = makeManifest({
    nodeName,
    enabled: clustering.at('enabled').read(kinds.flag) ?? false,
    routes: { hub: readRoutes(root.at(hubRoutesPath)), leaf: readRoutes(root.at(leafRoutesPath)) },
    nodes: readNodes(root.at(nodesPath), nodeName),
  })
  return { manifest, settings }
}

/** A new file: clustering switched off, every key we read with its default. */
export const defaultConfigText = `# Clustering. Routes, nodes and the limits of streams may be edited while the database runs; the rest takes effect when it
# is restarted.
clustering:
  enabled: false
  # Unique in the cluster; needed when enabled.
  nodeName: null
  # The cluster user; its password does not stand here.
  user: null
  logLevel: error
  republishMessages: false
  hubServer:
    cluster:
      name: harperdb
      network:
        # Other nodes' hubs connect to this port.
        port: 9932
        # Other nodes' hubs: host, and the port above of that node.
        routes: null
    leafNodes:
      network:
        port: 9931
    network:
      port: 9930
  leafServer:
    network:
      port: 9940
      # Other hubs, at their leafNodes port, that our leaf falls back to.
      routes: null
    streams:
      # Of each table's stream: seconds, bytes, messages; null: no limit. A lower one deletes at once what is beyond it.
      maxAge: null
      maxBytes: null
      maxMsgs: null
      path: null
  tls:
    certificate: null
    certificateAuthority: null
    privateKey: null
    insecure: false
    verify: true
  # The other nodes and what is replicated with each.
  nodes: null
`
