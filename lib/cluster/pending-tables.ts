// The remote tables that could not be read for some seconds although nothing else explains it.

import type { RemoteTable } from '../host/host.ts'
import { sourceKey } from '../replication/subscribe/sources.ts'
import type { PendingTable } from '../replication/subscribe/subscribers.ts'
import type { Timers } from '../util/timers.ts'

/** Reading that was interrupted goes on within seconds. */
const REPORTED_AFTER_MS = 15_000

export class PendingTables {
  readonly #timers: Pick<Timers, 'elapsed'>
  /** Since when (`Timers.elapsed`) each was seen pending, by `sourceKey`. */
  #since = new Map<string, number>()

  constructor(timers: Pick<Timers, 'elapsed'>) {
    this.#timers = timers
  }

  /**
   * Call it every second with the tables that cannot be read now. Returns those of which that has been so for 15 s. `isExplained`: the time
   * does not count, for example while the node is down, and begins again afterwards.
   */
  update(pending: readonly PendingTable[], isExplained: (source: RemoteTable) => boolean): PendingTable[] {
    const now = this.#timers.elapsed()
    const since = new Map<string, number>()
    const reported: PendingTable[] = []
    for (const each of pending) {
      if (isExplained(each.source)) continue
      const key = sourceKey(each.source)
      const first = this.#since.get(key) ?? now
      since.set(key, first)
      if (now - first >= REPORTED_AFTER_MS) reported.push(each)
    }
    this.#since = since
    return reported
  }
}
