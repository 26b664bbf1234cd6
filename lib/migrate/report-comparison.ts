// The result of a comparison as a step of the migration.

import { type Comparison, isEqual } from './compare-table.ts'
import type { Report } from './steps.ts'

/** One line for one table. */
export function reportComparison(report: Report, node: string, comparison: Comparison): void {
  const { rows, digest, missingHere, missingThere, different, changedMeanwhile, examples } = comparison
  const name = `${comparison.database}.${comparison.table}`
  const changed = changedMeanwhile > 0 ? `, ${changedMeanwhile} rows changed meanwhile` : ''
  if (isEqual(comparison))
    return report(
      'compare',
      `${name} equals that of ${node}: ${rows[0]} rows, digest ${digest[0].slice(0, 12)}${changed}`,
    )
  const text = `${missingHere} rows are missing here, ${missingThere} there, ${different} differ${changed}`
  report.problem('compare', `${name} differs from that of ${node}: ${text}`, { rows, digest, examples })
}
