// What a manager keeps of transactions that it could not take.

import type { ClusterManager, Source } from '../../lib/index.ts'

type Quarantine = {
  list(source?: Source): unknown[] | Promise<unknown[]>
  replay(source: Source, sequences?: number[]): Promise<{ applied: number[]; kept: number[] }>
}

/** Undefined of a manager that keeps none. */
export function quarantineOf(cluster: ClusterManager) {
  const quarantine = (cluster as { quarantine?: Quarantine }).quarantine
  if (!quarantine) return undefined
  return {
    /** Resolves with how many are kept afterwards. */
    async replayAll(): Promise<number> {
      for (const { source } of cluster.subscriptions()) await quarantine.replay(source)
      return (await quarantine.list()).length
    },
  }
}
