// The subscribers of one replicator by `sourceKey`, and what they are asked for together.

import type { SubscriptionState } from '../../events/events.ts'
import type { RemoteTable, TableName } from '../../host/host.ts'
import type { Timers } from '../../util/timers.ts'
import { CHECK_INTERVAL_MS } from './staleness.ts'
import type { Subscriber } from './subscriber.ts'
import type { SubscriptionStatus } from './subscription-status.ts'

/** States in which nothing is to come from the source. */
const NOT_WANTED: ReadonlySet<SubscriptionState> = new Set(['paused', 'ended'])

export type PendingTable = { source: RemoteTable; reason: string }

export class Subscribers extends Map<string, Subscriber> {
  readonly #timers: Timers
  #stopChecks = () => {}

  constructor(timers: Timers) {
    super()
    this.#timers = timers
  }

  /** One timer for all: those of a thousand idle subscriptions would wake the process a thousand times. Idempotent. */
  startChecks(): void {
    this.#stopChecks()
    this.#stopChecks = this.#timers.every(CHECK_INTERVAL_MS, () => {
      for (const subscriber of this.values()) void subscriber.checkStaleness()
    })
  }

  stopChecks(): void {
    this.#stopChecks()
  }

  status(): SubscriptionStatus[] {
    return [...this.values()].map((subscriber) => subscriber.status())
  }

  /** The statuses that show a problem. Asked for every second: a status of each of many subscriptions would cost most of an idle node's time. */
  troubled(): SubscriptionStatus[] {
    const found: SubscriptionStatus[] = []
    for (const subscriber of this.values()) if (subscriber.isTroubled) found.push(subscriber.status())
    return found
  }

  /** The remote tables that cannot be read now, with the reason. */
  pending(): PendingTable[] {
    const found: PendingTable[] = []
    for (const { source, state, error } of this.values())
      if (state === 'pending' && error !== undefined) found.push({ source, reason: error })
    return found
  }

  /** The nodes from which something is to come; true: something does, of at least one table. */
  readNodes(): ReadonlyMap<string, boolean> {
    const nodes = new Map<string, boolean>()
    for (const { source, state } of this.values()) {
      if (NOT_WANTED.has(state)) continue
      nodes.set(source.node, state !== 'pending' || nodes.get(source.node) === true)
    }
    return nodes
  }

  ofTable({ database, table }: Partial<Record<keyof TableName, string | undefined>>): {
    source: RemoteTable
    subscriber: Subscriber
  }[] {
    const all = [...this.values()].map((subscriber) => ({ source: subscriber.source, subscriber }))
    return all.filter(({ source }) => source.database === database && source.table === table)
  }
}
