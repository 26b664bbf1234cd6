// Waits until a subscription has applied what its source has published.

import type { RemoteTable } from '../../host/host.ts'
import { pause } from '../../util/pause.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from '../subscribe/applier.ts'
import type { PeerHashes } from './peer-hashes.ts'

/** ms for which transactions may be on their way. */
const TIMEOUT_MS = 60_000
const POLL_MS = { first: 10, max: 500 }

export type UntilAppliedOptions = {
  hashes: Pick<PeerHashes, 'status'>
  applier: Pick<Applier, 'checkpointOf'>
  timers: Timers
}

/**
 * Returns a function that waits. It resolves after a minute at the latest, and from then on at once: a copy holds one of few places, and
 * would wait again for each of its parts while the subscription is late. Rejects as `PeerHashes`, and with the signal's reason.
 */
export function waitUntilApplied(
  source: RemoteTable,
  options: UntilAppliedOptions,
): (signal: AbortSignal) => Promise<void> {
  let isLate = false
  return async (signal) => {
    if (!isLate) isLate = !(await untilApplied(source, options, signal))
  }
}

/** Resolves with false after a minute. */
async function untilApplied(
  source: RemoteTable,
  { hashes, applier, timers }: UntilAppliedOptions,
  signal: AbortSignal,
): Promise<boolean> {
  const target = await hashes.status(source, { signal })
  const end = timers.elapsed() + TIMEOUT_MS
  const isApplied = () => {
    const { epoch, sequence = 0 } = applier.checkpointOf(source) ?? {}
    return target.sequence === 0 || (epoch === target.epoch && sequence >= target.sequence)
  }
  for (let wait = POLL_MS.first; !isApplied() && timers.elapsed() < end; wait = Math.min(2 * wait, POLL_MS.max))
    await pause(timers, wait, signal)
  return isApplied()
}
