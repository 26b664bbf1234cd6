// What `cluster.metrics()` shows: counters since the manager was opened, and gauges of now.

/** What a subscription counts, for all of a node together. */
export type ReplicationCounters = {
  /** Transactions applied, and the database transactions that took them. */
  applied: number
  batches: number
  /** Bytes of messages received and dealt with. */
  bytes: number
  /** Transactions that came a second time, by whatever path, or were our own, and were not applied again. */
  duplicates: number
  /** Batches that the database refused and that were tried again. */
  retries: number
  /** Consumers made anew: after an outage, or because something was lost on the way. */
  rereads: number
  /** Gaps, and the transactions in them. */
  gaps: number
  lost: number
}

export type PublishCounters = {
  /** Transactions that our leaf has acknowledged wholly; messages, one a table, and their bytes. */
  transactions: number
  messages: number
  bytes: number
  /** Times that sending was interrupted and the stream looked at again. */
  retries: number
  /** Transactions that can never be sent. */
  refused: number
  /** Calls of `publish` that were not acknowledged in time. */
  backlogFull: number
}

export type Metrics = {
  publish: PublishCounters & {
    /** Transactions read from the outbox and not yet confirmed to it, and their bytes; calls of `publish` that wait. */
    queued: number
    queuedBytes: number
    waiting: number
  }
  apply: ReplicationCounters & {
    /** Subscriptions by state. */
    subscriptions: Record<'pending' | 'catching-up' | 'live' | 'stalled', number>
    /** Transactions of all sources that are known of and not yet applied. */
    lag: number
    /** Messages in quarantine. */
    quarantined: number
  }
}

export const replicationCounters = (): ReplicationCounters => ({
  applied: 0,
  batches: 0,
  bytes: 0,
  duplicates: 0,
  retries: 0,
  rereads: 0,
  gaps: 0,
  lost: 0,
})

export const publishCounters = (): PublishCounters => ({
  transactions: 0,
  messages: 0,
  bytes: 0,
  retries: 0,
  refused: 0,
  backlogFull: 0,
})
