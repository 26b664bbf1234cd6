// fast-check, with a limit of time: without it, a property that fails because something hangs is repeated with one smaller input after the
// other, each of which waits as long.

import fc from 'fast-check'
import { isLong } from './long.ts'

/** For one property: its runs, and the search for the smallest input after a failure. */
export const MAX_PROPERTY_MS = isLong ? 3_600_000 : 300_000

fc.configureGlobal({ interruptAfterTimeLimit: MAX_PROPERTY_MS, markInterruptAsFailure: true })

export { default } from 'fast-check'
