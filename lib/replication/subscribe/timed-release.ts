// Ends the quarantine of messages whose only fault is their timestamp: when the local clock reaches it, or their origin has voided it.

import type { RemoteTable } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import type { TableName } from '../../mesh/mesh.ts'
import type { Timers } from '../../util/timers.ts'
import type { Applier } from './applier.ts'
import type { Quarantine, QuarantinedMessage } from './quarantine.ts'

/** A subscription, as this module needs it. */
type ReleasingSubscriber = {
  readonly isLive: boolean
  releaseDue(isDue: (message: QuarantinedMessage) => boolean): Promise<void>
}

export type TimedReleaseOptions = {
  quarantine: Quarantine
  clock: HybridClock
  timers: Timers
  subscriber(source: RemoteTable): ReleasingSubscriber | undefined
  applier(table: TableName): Applier
}

const CHECK_INTERVAL_MS = 1_000

export class TimedRelease {
  readonly #options: TimedReleaseOptions
  #stop = () => {}

  constructor(options: TimedReleaseOptions) {
    this.#options = options
    this.start()
  }

  /** Idempotent. */
  start(): void {
    this.#stop()
    this.#stop = this.#options.timers.every(CHECK_INTERVAL_MS, () => this.#check())
  }

  close(): void {
    this.#stop()
  }

  /** One pass over the list in memory. */
  #check(): void {
    const { quarantine, subscriber } = this.#options
    const isDue = (message: QuarantinedMessage) => this.#isDue(message)
    for (const source of quarantine.dueSources(isDue)) void subscriber(source)?.releaseDue(isDue)
  }

  /**
   * Only while the subscription is live: then a transaction that voids the message was read already. A message that was relayed waits
   * for the subscription to its origin too, if there is one.
   */
  #isDue({ source, cause, timestamp, origin }: QuarantinedMessage): boolean {
    const { clock, subscriber, applier } = this.#options
    if (cause !== 'timestamp' || timestamp === undefined || origin === undefined) return false
    if (!subscriber(source)?.isLive || subscriber({ ...source, node: origin.node })?.isLive === false) return false
    return clock.accepts(timestamp) || applier(source).isVoided({ timestamp, origin })
  }
}
