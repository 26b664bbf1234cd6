// What an operator should know of a node: one list of conditions. `cluster/health.ts` assesses them.

/** Every condition, and whether it alone makes a node not ready. A test compares them with the table in the README. */
export const healthCodes = {
  not_open: { ready: false },
  superseded: { ready: false },
  mesh_disconnected: { ready: false },
  isolated: { ready: true },
  hub_failed: { ready: true },
  no_route_linked: { ready: true },
  peer_down: { ready: true },
  subscription_refused: { ready: true },
  subscription_pending: { ready: true },
  subscription_stalled: { ready: true },
  subscription_stale: { ready: true },
  gap_not_repaired: { ready: true },
  quarantined: { ready: true },
  clock_ahead: { ready: true },
  disk_low: { ready: true },
  certificate_expires: { ready: true },
  server_exposed: { ready: true },
} as const satisfies Record<string, { ready: boolean }>

export type HealthCode = keyof typeof healthCodes

/** `node`, `database` and `table` where the condition concerns one remote node, or one of its tables. */
export type HealthCondition = {
  readonly code: HealthCode
  readonly node?: string
  readonly database?: string
  readonly table?: string
  readonly message: string
}

/** `ready`: the node takes part, and its streams store what is committed. */
export type Health = { readonly ready: boolean; readonly degraded: readonly HealthCondition[] }

/** A health with these conditions, frozen. */
export function healthOf(degraded: readonly HealthCondition[]): Health {
  const ready = degraded.every(({ code }) => healthCodes[code].ready)
  return Object.freeze({ ready, degraded: Object.freeze(degraded.map((each) => Object.freeze(each))) })
}

const keyOf = ({ code, node, database, table }: HealthCondition) => JSON.stringify([code, node, database, table])

/** Conditions that began and ended between two assessments, by their code, node and table: another message is no change. */
export function compareHealth(before: Health, now: Health): { began: HealthCondition[]; ended: HealthCondition[] } {
  const [known, present] = [before, now].map(({ degraded }) => new Set(degraded.map(keyOf)))
  return {
    began: now.degraded.filter((each) => !known!.has(keyOf(each))),
    ended: before.degraded.filter((each) => !present!.has(keyOf(each))),
  }
}
