// The migration of one node from HarperDB, step by step. It reads from HarperDB only. It may be repeated: the last time after the programs
// that write to this node have stopped.

import { access, mkdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host } from '../host/host.ts'
import type { Route } from '../manifest/manifest.ts'
import { migratedConfigText } from '../manifest/migrated-config.ts'
import { isAbortReason } from '../util/abort.ts'
import { writeFileAtomic } from '../util/atomic-file.ts'
import { systemTimers } from '../util/timers.ts'
import { apiReader, type Comparison, compareTable, hostReader, type RowReader } from './compare-table.ts'
import { HarperApi, type HarperLogin } from './harper-api.ts'
import { type ImportResult, importTable } from './import-table.ts'
import { type MigrationPlan, type Neighbour, planMigration, readConfiguration } from './plan.ts'
import type { KeyedTable } from './record-pages.ts'
import { reportComparison } from './report-comparison.ts'
import { writeStartTimes } from './start-times.ts'
import { createReport, type MigrationStep, type Report } from './steps.ts'

export type MigrationOptions = {
  /** Path of the `harperdb-config.yaml`. */
  harperConfigFile: string
  /** A super user of the running node. Default of `url`: the port of the file, on this machine. */
  harper: Omit<HarperLogin, 'url'> & { url?: string }
  /** Password of the cluster user. HarperDB has it encrypted, so it cannot be read. */
  clusterPassword: string
  /** Path of the configuration file to write. A file that exists stays. */
  configFile: string
  /** Absolute: `rootPath` of the new node. Not HarperDB's. */
  rootPath: string
  /** The database of the new node. No cluster manager has it open. Without it, no rows are imported. */
  host?: Host | undefined
  /** Returns keys of the host's own part of the configuration file, such as its users. */
  hostKeys?: ((clusterUser: string) => Record<string, unknown>) | undefined
  /** `keep` (default): the node continues the streams of HarperDB, and other nodes read on where they are. `new`: it begins empty ones. */
  streams?: 'keep' | 'new'
  /** Addresses of the hubs of other nodes, where the running hub does not know them. */
  addresses?: Readonly<Record<string, Route>> | undefined
  /** URLs of the operations APIs of other nodes. Default: the address of the hub, and the port of `cluster_status`. */
  apiUrls?: Readonly<Record<string, string>> | undefined
  /** ms before the migration from which the streams of other nodes are read: clocks differ, and HarperDB may be behind. Default: an hour. */
  overlap?: number
  /** No program writes to this node any more: the migration of its own writes is complete. Other nodes may go on. */
  writersStopped?: boolean
  /**
   * Compares the tables with every other node too. For that, `harper.username` and its password are sent to the operations API of each of
   * them, unencrypted if its URL has no https. Default: true.
   */
  compareNeighbours?: boolean
  /** Changes nothing: no file, no row. */
  dryRun?: boolean
  signal?: AbortSignal | undefined
  /** Called after each step. */
  onStep?: (step: MigrationStep) => void
  /** Called after each page of a table, with the number of rows so far. */
  onRows?: (table: string, rows: number) => void
  /** ms between two looks at rows that differ from those of another node. */
  settle?: number
}

export type MigrationResult = {
  steps: MigrationStep[]
  plan: MigrationPlan
  imported: ImportResult[]
  compared: (Comparison & { node: string })[]
  /** The writers had stopped, the rows are here, and no step has a problem: HarperDB may be stopped on this node. */
  isComplete: boolean
}

const DEFAULT_OVERLAP_MS = 3_600_000
/** ms: for a write that was on its way to this node when the import began. */
const CHANGE_MARGIN_MS = 60_000
/** Of HarperDB. */
const DEFAULT_API_PORT = 9925

/**
 * Rejects config_rejected, config_unwritable, harperdb_unreachable, harperdb_rejected, migration_blocked, aborted, and internal when the host
 * refuses rows. What was done stays, and the next call continues.
 */
export async function migrate(options: MigrationOptions): Promise<MigrationResult> {
  try {
    return await migrateNode(options)
  } catch (error) {
    throw isAbortReason(error, options.signal) ? clusterErrorFrom(error, 'aborted', 'migrate') : error
  }
}

async function migrateNode(options: MigrationOptions): Promise<MigrationResult> {
  const { report, steps } = createReport(options.onStep)
  const { signal, dryRun = false, writersStopped = false, overlap = DEFAULT_OVERLAP_MS } = options
  // Before anything is read: what other nodes write from now on is in their streams after this time.
  const began = systemTimers.now()
  const startTime = began - overlap
  const harper = await readConfiguration(options.harperConfigFile, report)
  const url = options.harper.url ?? `http://127.0.0.1:${harper.settings.operationsApiPort ?? DEFAULT_API_PORT}`
  const api = new HarperApi({ ...options.harper, url })
  const plan = await planMigration({ ...options, harper, api, report })
  const text = configText(options, plan)
  if (dryRun) {
    report('file', `${options.configFile} would be written`, {
      text: configText({ ...options, hostKeys: undefined }, plan),
    })
    for (const each of plan.tables) report('import', `${nameOf(each)}: about ${each.rows} rows would be imported`)
    reportLogins(options, plan.neighbours, report)
    report('next', 'nothing was changed; run the migration without the dry run')
    return { steps, plan, imported: [], compared: [], isComplete: false }
  }
  await writeConfiguration(options, { plan, text, startTime, report })
  const imported: ImportResult[] = []
  const compared: MigrationResult['compared'] = []
  if (options.host) {
    const { host } = options
    for (const table of plan.tables) {
      const result = await importOne({ options, api, host, table, report })
      if (result) imported.push(result)
    }
    const done = plan.tables.filter((each) => imported.some((one) => nameOf(one) === nameOf(each)))
    await compareWithAll(options, { plan, api, host, tables: done, report, compared, since: began - CHANGE_MARGIN_MS })
  }
  signal?.throwIfAborted()
  const hasProblems = steps.some(({ state }) => state === 'problem')
  const isComplete = writersStopped && options.host !== undefined && !hasProblems
  report('next', nextText(options, { isComplete, hasProblems }))
  return { steps, plan, imported, compared, isComplete }
}

const nameOf = ({ database, table }: { database: string; table: string }) => `${database}.${table}`
const harperReaders = ({ neighbours }: MigrationPlan) => neighbours.some(({ runsHarper }) => runsHarper)

function configText(
  { configFile, rootPath, hostKeys, streams = 'keep' }: MigrationOptions,
  plan: MigrationPlan,
): string {
  const { harper, routes, nodes } = plan
  if (streams === 'keep' && harper.streamsPath === undefined)
    throw clusterError(
      'migration_blocked',
      'the file of HarperDB has no rootPath: the directory of its streams is not known',
    )
  const streamsPath = streams === 'keep' ? harper.streamsPath : undefined
  return migratedConfigText(configFile, {
    harper,
    rootPath,
    routes,
    nodes,
    streamsPath,
    hostKeys: hostKeys?.(harper.settings.user!),
    harperReaders: harperReaders(plan),
  })
}

type Written = { plan: MigrationPlan; text: string; startTime: number; report: Report }

async function writeConfiguration(
  options: MigrationOptions,
  { plan, text, startTime, report }: Written,
): Promise<void> {
  const { configFile, rootPath, streams = 'keep' } = options
  if (await exists(configFile)) return report('file', `${configFile} exists and stays as it is`)
  const { nodes, harper, neighbours } = plan
  if (rootPath === harper.settings.rootPath)
    throw clusterError(
      'migration_blocked',
      `${rootPath} is the directory of HarperDB: the new node needs one of its own`,
    )
  try {
    await mkdir(join(rootPath, 'clustering'), { recursive: true, mode: 0o700 })
    await mkdir(dirname(configFile), { recursive: true })
    // First: without the file, the next call writes both.
    const copied = new Set(neighbours.flatMap(({ node, runsHarper }) => (runsHarper ? [] : [node])))
    await writeStartTimes({ rootPath, nodeName: harper.nodeName, nodes, time: startTime, copied })
    await writeFileAtomic(configFile, text)
  } catch (error) {
    throw clusterError('config_unwritable', configFile, reasonOf(error))
  }
  const used = streams === 'keep' ? `continues the streams in ${harper.streamsPath}` : 'begins new streams'
  report('file', `${configFile} written: the node ${used}`)
  report('file', `the streams of other nodes are read from ${new Date(startTime).toISOString()} on`)
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

type ImportContext = { options: MigrationOptions; api: HarperApi; host: Host; table: KeyedTable; report: Report }

/** Undefined if the host refuses the table. */
async function importOne({ options, api, host, table, report }: ImportContext): Promise<ImportResult | undefined> {
  const { signal, onRows, writersStopped: isFinal = false } = options
  const { database, table: name, primaryKey, attributes } = table
  try {
    await host.createTable({ database, table: name, primaryKey, attributes })
  } catch (error) {
    report.problem('import', `${nameOf(table)} cannot be created: ${reasonOf(error)}`)
    return undefined
  }
  const whenRead = (rows: number) => onRows?.(nameOf(table), rows)
  const result = await importTable({ api, host, table, signal, isFinal, onRows: whenRead }).catch((error) => {
    throw error instanceof ClusterError ? error : clusterError('internal', `${nameOf(table)}: ${reasonOf(error)}`)
  })
  const { rows, continuedAfter, unread, uncounted, changed, deleted, untimed, future, refused, examples } = result
  const resumed = continuedAfter > 0 ? `, continued after ${continuedAfter}` : ''
  report('import', `${nameOf(table)}: ${rows} rows read${resumed}, ${changed ?? 'unknown'} changed, ${deleted} deleted`)
  // Rows that come and go meanwhile may lead to such a count, but not in a final pass of seconds.
  if (unread > 0)
    (isFinal ? report.problem : report.warning)(
      'import',
      `${nameOf(table)}: HarperDB counts ${unread} rows more than it answered; repeat the migration`,
    )
  if (uncounted !== undefined)
    report.warning('import', `${nameOf(table)}: its rows were not counted, so none was deleted: ${uncounted}`)
  if (untimed > 0)
    report.warning(
      'import',
      `${nameOf(table)}: ${untimed} rows have no time in HarperDB, so every other write of them wins`,
    )
  if (future > 0)
    report.warning('import', `${nameOf(table)}: ${future} rows have a time in the future, and got the present time`)
  if (refused > 0) report.problem('import', `${nameOf(table)}: ${refused} rows cannot be imported`, { examples })
  return result
}

type CompareContext = {
  plan: MigrationPlan
  api: HarperApi
  host: Host
  tables: KeyedTable[]
  report: Report
  compared: MigrationResult['compared']
  /** ms since 1970. */
  since: number
}

/** `apiUrl` has the address that the running hub or the operator has for the node. */
const urlOf = ({ apiUrls }: MigrationOptions, { node, apiUrl }: Neighbour) => apiUrls?.[node] ?? apiUrl

/** To whom the password goes. */
function reportLogins(options: MigrationOptions, neighbours: readonly Neighbour[], report: Report): void {
  const { compareNeighbours = true, dryRun, harper } = options
  const urls = neighbours.flatMap((each) => {
    const url = urlOf(options, each)
    if (url === undefined) return []
    return `${each.node} at ${url}${/^https:/i.test(url) ? '' : ', unencrypted'}`
  })
  if (!compareNeighbours || urls.length === 0) return
  const verb = dryRun ? 'would be' : 'is'
  report('compare', `the password of ${harper.username} ${verb} sent to other nodes, to compare: ${urls.join('; ')}`)
}

/** With the HarperDB of this node, and with each other node the tables that are replicated with it. */
async function compareWithAll(options: MigrationOptions, context: CompareContext): Promise<void> {
  const { plan, api, host, tables, report } = context
  if (!host.readRows) return report.warning('compare', 'the database cannot read its rows, so they are not compared')
  const readerOf = (each: HarperApi, table: KeyedTable) => apiReader(each, table, options.signal)
  for (const table of tables) {
    const there = readerOf(api, table)
    await compareOne(options, context, { node: 'HarperDB of this node', table, there, original: 'there' })
  }
  if (options.compareNeighbours === false) return
  reportLogins(options, plan.neighbours, report)
  for (const neighbour of plan.neighbours) {
    const url = urlOf(options, neighbour)
    if (url === undefined) {
      report.problem('compare', `${neighbour.node} is not compared: the URL of its operations API is not known`)
      continue
    }
    const remote = new HarperApi({ ...options.harper, url })
    for (const table of tables.filter((each) => isShared(neighbour, each))) {
      const [there, original] = [readerOf(remote, table), readerOf(api, table)]
      await compareOne(options, context, { node: neighbour.node, table, there, original })
    }
  }
}

const isShared = ({ subscriptions }: Neighbour, table: KeyedTable) =>
  subscriptions.some((each) => nameOf(each) === nameOf(table) && (each.publish || each.subscribe))

/** `original`: of `compareTable`. */
type Other = { node: string; table: KeyedTable; there: RowReader; original: RowReader | 'there' }

async function compareOne(
  options: MigrationOptions,
  context: CompareContext,
  { node, table, there, original }: Other,
): Promise<void> {
  const { host, report, compared, since } = context
  try {
    const { signal, settle } = options
    const here = hostReader(host, table)
    const comparison = await compareTable({
      table,
      here,
      there,
      signal,
      since,
      original,
      ...(settle !== undefined && { settle }),
    })
    compared.push({ ...comparison, node })
    reportComparison(report, node, comparison)
  } catch (error) {
    if (options.signal?.aborted) throw error
    report.problem('compare', `${nameOf(table)} is not compared with ${node}: ${reasonOf(error)}`)
  }
}

function nextText(
  { configFile, streams = 'keep' }: MigrationOptions,
  { isComplete, hasProblems }: { isComplete: boolean; hasProblems: boolean },
): string {
  if (isComplete)
    return `stop HarperDB on this node now, start the new node with ${configFile}, then compare it with the other nodes`
  if (hasProblems) return 'look at the problems above, and repeat the migration'
  const wait = streams === 'new' ? ', wait until the other nodes have their writes' : ''
  return `stop the programs that write to this node${wait}, and repeat the migration for their last writes`
}
