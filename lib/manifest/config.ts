// Reads settings and manifest from the parsed tree of the configuration file.

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
  // The first of duplicates counts: files of HarperDB may have some.
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
    if (named.has(key)) item.addFault(`repeats the table '${database}.${table}'`)
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
    if (name === localName) item.at('name').addFault(`must not be the name of the local node, '${name}'`)
    if (nodes.has(name)) item.at('name').addFault(`repeats the node '${name}'`)
    nodes.set(name, { name, subscriptions })
  }
  return [...nodes.values()]
}

/** Adds faults to `root`; with faults the result is meaningless. */
export function readConfig(root: ConfigNode): Config {
  const clustering = root.at('clustering')
  const settings = readSettings(root)
  // A partly written file can be valid YAML: it must not remove everything.
  if (clustering.unset) {
    clustering.addFault("the section 'clustering' is missing; to run without clustering, set `enabled: false`")
    return { manifest: emptyManifest, settings }
  }
  // A misspelt key must not run a database without its cluster.
  const enabled = clustering.at('enabled')
  if (enabled.unset && typeof clustering.value === 'object')
    enabled.addFault('is missing: set `enabled: true`, or `enabled: false` to run without clustering')
  const nodeName = clustering.at('nodeName').read(kinds.nodeName) ?? ''
  const manifest = makeManifest({
    nodeName,
    enabled: enabled.read(kinds.flag) ?? false,
    routes: { hub: readRoutes(root.at(hubRoutesPath)), leaf: readRoutes(root.at(leafRoutesPath)) },
    nodes: readNodes(root.at(nodesPath), nodeName),
  })
  return { manifest, settings }
}

/** A new file: clustering disabled, every key of the section with its default. */
export const defaultConfigText = `# Clustering. Routes, nodes and the limits of streams may be edited while the database runs; other changes take effect after
# a restart.
clustering:
  enabled: false
  # Unique in the cluster; required when enabled.
  nodeName: null
  # The cluster user; its password is not stored here.
  user: null
  logLevel: error
  republishMessages: false
  hubServer:
    cluster:
      name: harperdb
      network:
        # The hubs of other nodes connect to this port.
        port: 9932
        # The hubs of other nodes: host, and the port above of that node.
        routes: null
    leafNodes:
      network:
        port: 9931
    network:
      port: 9930
  leafServer:
    network:
      port: 9940
      # Other hubs, at their leafNodes port, as fallback for the local leaf.
      routes: null
    streams:
      # For each table: seconds, bytes, messages; null: no limit. A lower limit deletes the messages beyond it at once.
      maxAge: null
      maxBytes: null
      maxMsgs: null
      # What every subscriber has applied goes after trimAfter seconds (default 3600): applied; null: as the limits say.
      trim: null
      trimAfter: null
      path: null
  tls:
    certificate: null
    certificateAuthority: null
    privateKey: null
    insecure: false
    verify: true
  # The other nodes and the tables replicated with each.
  nodes: null
`
