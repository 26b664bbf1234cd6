// Waiting for a condition that no event reports.

import { delay, systemTimers } from '../util/timers.ts'

const POLL_INTERVAL_MS = 10

/**
 * Polls `probe` and resolves with its first result that is neither undefined nor false. Rejects when `probe` rejects, and after
 * `timeout` ms (default 15,000) with an Error that names `what`.
 */
export async function eventually<T>(
  what: string | (() => string),
  probe: () => T | undefined | false | Promise<T | undefined | false>,
  timeout = 15_000,
): Promise<T> {
  const end = systemTimers.now() + timeout
  for (;;) {
    const value = await probe()
    if (value !== undefined && value !== false) return value
    if (systemTimers.now() > end)
      throw new Error(`not within ${timeout} ms: ${typeof what === 'string' ? what : what()}`)
    await delay(POLL_INTERVAL_MS)
  }
}
