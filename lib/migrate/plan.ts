// What a migration of a node will do, read from its configuration file, its operations API and its hub. Changes nothing.

import { readFile } from 'node:fs/promises'
import { clusterError, reasonOf } from '../errors.ts'
import { decodeBytes } from '../manifest/config-bytes.ts'
import type { ManifestNode, Route, Subscription } from '../manifest/manifest.ts'
import { type HarperConfig, readHarperConfig } from '../manifest/migrated-config.ts'
import { tokenFault } from '../manifest/names.ts'
import type { TableName } from '../mesh/mesh.ts'
import { type HubLogin, type HubLoginResult, logInToHub } from '../mesh/nats/hub-login.ts'
import type { HarperConnection, HarperStatus } from './harper-answers.ts'
import type { HarperApi } from './harper-api.ts'
import type { KeyedTable } from './record-pages.ts'
import { planRoutes } from './routes.ts'
import type { Report } from './steps.ts'

export type PlanOptions = {
  api: HarperApi
  harper: HarperConfig
  /** Of the cluster user. */
  clusterPassword: string
  /** Addresses of other nodes, for their hubs: `hubServer.cluster.network.port`. */
  addresses?: Readonly<Record<string, Route>> | undefined
  report: Report
  signal?: AbortSignal | undefined
  /** Default: the real one. */
  logIn?: (login: HubLogin) => Promise<HubLoginResult>
}

/** Another node of the cluster. */
export type Neighbour = {
  node: string
  /** Of its hub. */
  address: Route | undefined
  /** Of its operations API; undefined if it is not known. */
  apiUrl: string | undefined
  runsHarper: boolean
  subscriptions: Subscription[]
}

export type MigrationPlan = {
  harper: HarperConfig
  routes: Route[]
  neighbours: Neighbour[]
  nodes: ManifestNode[]
  tables: KeyedTable[]
  /** Tables that are left out as a whole, or are not replicated: `reason` says which, after the name. */
  skipped: (TableName & { reason: string })[]
}

const FIRST_VERSION = [4, 3] as const
const nameOf = ({ database, table }: TableName) => `${database}.${table}`

/**
 * Rejects harperdb_unreachable, harperdb_rejected, aborted, and migration_blocked: wrong password, a node without a known address, a
 * version of HarperDB before 4.3, a configuration of another node.
 */
export async function planMigration(options: PlanOptions): Promise<MigrationPlan> {
  const { harper, api, report, signal } = options
  const [status, members, described] = [await api.status(signal), await api.network(signal), await api.tables(signal)]
  checkStatus(harper, status)
  report('node', `${status.nodeName} answers at ${api.url}`, {
    connections: status.connections.map(({ node }) => node),
    tables: described.length,
  })
  const known = new Set([...members, ...status.connections].map(({ node }) => node))
  const nodes = [...known].filter((node) => node !== harper.nodeName)
  const { addresses: given = {} } = options
  const login = await checkPassword(
    harper,
    nodes.filter((node) => !given[node]),
    options,
  )
  const planned = await planRoutes({
    nodes,
    configured: harper.routes,
    ofMembers: members.flatMap(({ routes }) => routes),
    hubs: login.outcome === 'accepted' ? login.hubs : [],
    given,
  })
  if (planned.missing.length > 0) throw clusterError('migration_blocked', missingText(planned.missing))
  report('routes', `a route to each of the other nodes: ${planned.routes.map(textOf).join(', ') || 'no other node'}`)
  const { tables, skipped } = selectTables(described)
  const neighbours = status.connections.map((each) =>
    neighbourOf(each, planned.addresses.get(each.node), api.url, skipped),
  )
  for (const each of skipped) report.problem('tables', `${nameOf(each)} ${each.reason}`)
  return {
    harper,
    routes: planned.routes,
    neighbours,
    nodes: neighbours.map(({ node: name, subscriptions }) => ({ name, subscriptions })),
    tables,
    skipped,
  }
}

const textOf = ({ host, port }: Route) => `${host}:${port}`
const missingText = (missing: readonly string[]) =>
  `no address is known of ${missing.join(', ')}: pass the address of the hub of each, or start HarperDB there`

/** Rejects config_rejected, and migration_blocked when clustering is not enabled. */
export async function readConfiguration(file: string, report: Report): Promise<HarperConfig> {
  const bytes = await readFile(file).catch((error) => {
    throw clusterError('config_rejected', file, reasonOf(error))
  })
  const harper = readHarperConfig(file, decodeBytes(bytes))
  if (!harper.enabled || harper.nodeName === '')
    throw clusterError(
      'migration_blocked',
      `${file} has no clustering that is enabled, and a node without it needs no migration of it`,
    )
  if (harper.settings.user === undefined)
    throw clusterError('migration_blocked', `clustering.user is missing in ${file}`)
  report('configuration', `${file} is that of node ${harper.nodeName}, cluster user ${harper.settings.user}`)
  if (harper.settings.tls?.insecure)
    report.warning(
      'configuration',
      'clustering.tls.insecure is true, as HarperDB sets it: certificates of other nodes are not verified',
    )
  return harper
}

function checkStatus(harper: HarperConfig, { nodeName, isEnabled, connections }: HarperStatus): void {
  if (!isEnabled) throw clusterError('migration_blocked', 'clustering is disabled in the HarperDB that answers')
  if (nodeName !== harper.nodeName)
    throw clusterError(
      'migration_blocked',
      `the HarperDB that answers is node ${nodeName}, the file is that of ${harper.nodeName}`,
    )
  for (const { node, version } of connections)
    if (version !== undefined && isTooOld(version))
      throw clusterError('migration_blocked', `${node} runs HarperDB ${version}: update it to 4.3 or later first`)
}

/** Only of HarperDB's own versions: other hosts have versions of their own. */
function isTooOld(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major === FIRST_VERSION[0] && minor < FIRST_VERSION[1]
}
const isHarperVersion = (version: string | undefined): boolean => version === undefined || version.startsWith('4.')

async function checkPassword(
  { settings }: HarperConfig,
  expected: readonly string[],
  { clusterPassword, report, logIn = logInToHub }: PlanOptions,
): Promise<HubLoginResult> {
  const { host, port } = { host: '127.0.0.1', port: settings.ports.hub }
  const { user, tls } = settings
  const result = await logIn({ host, port, user: user!, password: clusterPassword, tls, expected })
  if (result.outcome === 'rejected')
    throw clusterError(
      'migration_blocked',
      `the hub at ${host}:${port} rejects the password of cluster user ${settings.user}`,
    )
  if (result.outcome === 'unreachable')
    report.warning(
      'password',
      `the password was not checked: the hub at ${host}:${port} does not answer (${result.reason})`,
    )
  else
    report('password', `the hub at ${host}:${port} accepts the password; it runs nats-server ${result.serverVersion}`)
  return result
}

function selectTables(described: readonly (Omit<KeyedTable, 'primaryKey'> & { primaryKey: string | undefined })[]) {
  const tables: KeyedTable[] = []
  const skipped: MigrationPlan['skipped'] = []
  for (const each of described) {
    const { database, table, primaryKey } = each
    if (primaryKey === undefined) skipped.push({ database, table, reason: 'is left out: it has no primary key' })
    else tables.push({ ...each, primaryKey })
  }
  return { tables, skipped }
}

/** Subscriptions of tables whose names cannot be part of a subject are skipped; their rows are imported. */
function neighbourOf(
  { node, apiPort, version, subscriptions }: HarperConnection,
  address: Route | undefined,
  localUrl: string,
  skipped: MigrationPlan['skipped'],
): Neighbour {
  const { protocol } = new URL(localUrl)
  const isSkipped = ({ database, table }: TableName) =>
    skipped.some((each) => each.database === database && each.table === table)
  const replicated = subscriptions.filter((each) => {
    const fault = tokenFault(each.database) ?? tokenFault(each.table)
    if (fault && !isSkipped(each))
      skipped.push({
        database: each.database,
        table: each.table,
        reason: `cannot be replicated, only its rows are imported: ${fault}`,
      })
    return !isSkipped(each)
  })
  const host =
    address && (address.host.includes(':') && !address.host.startsWith('[') ? `[${address.host}]` : address.host)
  return {
    node,
    address,
    apiUrl: host !== undefined && apiPort !== undefined ? `${protocol}//${host}:${apiPort}` : undefined,
    runsHarper: isHarperVersion(version),
    subscriptions: replicated.map(({ database, table, publish, subscribe }) => ({
      database,
      table,
      publish,
      subscribe,
    })),
  }
}
