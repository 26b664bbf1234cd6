// The configuration of a node that ran HarperDB: reads `harperdb-config.yaml`, and writes the file that takes its place.

import { join } from 'node:path'
import { Document } from 'yaml'
import { clusterError } from '../errors.ts'
import type { Config } from './config.ts'
import { ConfigText, problemText } from './config-text.ts'
import type { ManifestNode, Route } from './manifest.ts'
import type { Settings } from './settings.ts'

type Tree = Record<string, unknown>

/** What a `harperdb-config.yaml` says of the node. */
export type HarperConfig = {
  nodeName: string
  enabled: boolean
  settings: Settings
  routes: readonly Route[]
  /** The directory of the streams, HarperDB's default included; undefined without a `rootPath`. */
  streamsPath: string | undefined
  /** The section `clustering` as plain values. */
  clustering: Tree
}

/** What changes in the section; the rest of it is taken as it is. */
export type MigratedConfig = {
  harper: HarperConfig
  /** Absolute: of the new node. */
  rootPath: string
  routes: readonly Route[]
  nodes: readonly ManifestNode[]
  /** undefined: below `rootPath`. */
  streamsPath: string | undefined
  /** Nodes that run HarperDB read from this one. */
  harperReaders: boolean
  /** Keys of the host's own part of the file. */
  hostKeys?: Tree | undefined
}

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value)

/** Throws ClusterError config_rejected, with line and column. Shows no value of the host's part of the file. */
export function readHarperConfig(file: string, contents: string): HarperConfig {
  const text = new ConfigText(contents)
  const { manifest, settings } = validConfig(file, text)
  const { clustering } = text.tree as { clustering: Tree }
  return {
    nodeName: manifest.nodeName,
    enabled: manifest.enabled,
    settings,
    routes: manifest.routes.hub,
    streamsPath: settings.streams.path ?? (settings.rootPath && join(settings.rootPath, 'clustering', 'leaf')),
    clustering,
  }
}

function validConfig(file: string, text: ConfigText): Config {
  const { config, problems } = text
  if (config) return config
  throw clusterError('config_rejected', file, problems.map(problemText).join('; '))
}

/** The text of the new file. Throws ClusterError config_rejected when it would not be valid. */
export function migratedConfigText(file: string, migrated: MigratedConfig): string {
  const { harper, rootPath, hostKeys = {} } = migrated
  const { operationsApiPort } = harper.settings
  const document = new Document({
    rootPath,
    ...(operationsApiPort !== undefined && { operationsApi: { network: { port: operationsApiPort } } }),
    ...hostKeys,
    clustering: migratedSection(migrated),
  })
  document.commentBefore = ` Written by the migration from HarperDB of node ${JSON.stringify(harper.nodeName)}.`
  const text = document.toString({ lineWidth: 0 })
  validConfig(file, new ConfigText(text))
  return text
}

function migratedSection({ harper, routes, nodes, streamsPath, harperReaders }: MigratedConfig): Tree {
  const section = structuredClone(harper.clustering)
  Object.assign(section, { enabled: true, nodeName: harper.nodeName })
  if (harperReaders) section.compatibility = 'harperdb4'
  set(section, ['hubServer', 'cluster', 'network', 'routes'], routes.length > 0 ? routes : null)
  set(section, ['leafServer', 'streams', 'path'], streamsPath ?? null)
  section.nodes = nodes.length > 0 ? nodes : null
  return section
}

function set(tree: Tree, [key = '', ...rest]: string[], value: unknown): void {
  if (rest.length === 0) tree[key] = value
  else {
    if (!isTree(tree[key])) tree[key] = {}
    set(tree[key] as Tree, rest, value)
  }
}
