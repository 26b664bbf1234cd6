// Compares two running nodes over their operations APIs: after a migration, and between migrations.

import { clusterErrorFrom } from '../errors.ts'
import { isAbortReason } from '../util/abort.ts'
import { apiReader, type Comparison, compareTable } from './compare-table.ts'
import { HarperApi, type HarperLogin } from './harper-api.ts'
import type { KeyedTable } from './record-pages.ts'
import { reportComparison } from './report-comparison.ts'
import { createReport, type MigrationStep } from './steps.ts'

export type CompareNodesOptions = {
  /** The nodes, either of HarperDB or of a host with the same operations. */
  here: HarperLogin
  there: HarperLogin
  /** ms between two looks at rows that differ. Default 1,000. */
  settle?: number
  signal?: AbortSignal | undefined
  /** Called after each table. */
  onStep?: (step: MigrationStep) => void
}

/** Of the tables that both nodes have; a step says which ones `there` lacks. Rejects harperdb_unreachable, harperdb_rejected, aborted. */
export async function compareNodes(options: CompareNodesOptions): Promise<Comparison[]> {
  try {
    return await compareAll(options)
  } catch (error) {
    throw isAbortReason(error, options.signal) ? clusterErrorFrom(error, 'aborted', 'compare the nodes') : error
  }
}

async function compareAll(options: CompareNodesOptions): Promise<Comparison[]> {
  const { settle, signal } = options
  const { report } = createReport(options.onStep)
  const [here, there] = [new HarperApi(options.here), new HarperApi(options.there)]
  const [left, right] = await Promise.all([here.tables(signal), there.tables(signal)])
  const comparisons: Comparison[] = []
  for (const { primaryKey, ...table } of left) {
    const other = right.find((each) => each.database === table.database && each.table === table.table)
    if (primaryKey === undefined || other?.primaryKey !== primaryKey) {
      const reason = other ? 'it has another primary key there, or none' : `${there.url} does not have it`
      report.warning('compare', `${table.database}.${table.table} is not compared: ${reason}`)
      continue
    }
    const keyed: KeyedTable = { ...table, primaryKey }
    const readers = { here: apiReader(here, keyed, signal), there: apiReader(there, keyed, signal) }
    const comparison = await compareTable({ table: keyed, ...readers, signal, ...(settle !== undefined && { settle }) })
    comparisons.push(comparison)
    reportComparison(report, there.url, comparison)
  }
  return comparisons
}
