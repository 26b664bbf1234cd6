// Waiting for what no event tells.

import { setTimeout as delay } from 'node:timers/promises'

/** ms between two looks. */
const POLL_INTERVAL_MS = 10

/**
 * Resolves with what `probe` gives as soon as that is neither undefined nor false. Rejects when `probe` does, and after `timeout` ms
 * (default 15,000) with `what` was awaited.
 */
export async function eventually<T>(
  what: string | (() => string),
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeout = 15_000,
): Promise<T> {
  const end = Date.now() + timeout
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== false) return value
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${typeof what === 'string' ? what : what()}`)
    await delay(POLL_INTERVAL_MS)
  }
}
