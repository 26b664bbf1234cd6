// The way from HarperDB 4.3 and later: `enmesh/migrate`. lib/migrate/README.md tells it step by step.

export { type CompareNodesOptions, compareNodes } from './migrate/compare-nodes.ts'
export type { Comparison } from './migrate/compare-table.ts'
export type { HarperLogin } from './migrate/harper-api.ts'
export type { ImportResult, RefusedRow } from './migrate/import-table.ts'
export { type MigrationOptions, type MigrationResult, migrate } from './migrate/migrate.ts'
export type { MigrationPlan, Neighbour } from './migrate/plan.ts'
export type { MigrationStep, StepName } from './migrate/steps.ts'
