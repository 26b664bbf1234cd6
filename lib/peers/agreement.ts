// How two nodes come to hold mirror images of one subscription.

import type { Subscription } from '../manifest/manifest.ts'

/** A subscription as asked for; `startTime` in ISO 8601, UTC. */
export type Wanted = Subscription & { readonly startTime?: string }

/** What came of it: `skipped` tables exist on neither node, or differ in their primary key. */
export type Outcome = { readonly agreed: readonly Wanted[]; readonly skipped: readonly Wanted[] }

export type AgreeOptions = {
  /** Named in the texts of errors. */
  operation: string
  /** Subscriptions that are not named are ended (configure_cluster) instead of kept. */
  replace?: boolean
  signal?: AbortSignal | undefined
}
