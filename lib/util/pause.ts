// A pause that an AbortSignal can end.

import { withAbort } from './abort.ts'
import type { Timers } from './timers.ts'

/** Resolves after `ms`; rejects with the signal's reason as soon as it aborts. */
export function pause(timers: Timers, ms: number, signal: AbortSignal): Promise<void> {
  let cancel = () => {}
  const over = new Promise<void>((resolve) => {
    cancel = timers.after(ms, resolve)
  })
  return withAbort(over, signal).finally(cancel)
}
