// What `cluster.metrics()` shows: counters since the manager was opened, and gauges of now; and the table by which meters are told of them.

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
  consumerRestarts: number
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
  rejected: number
  /** Calls of `publish` that were not acknowledged in time. */
  timeouts: number
}

export type Metrics = {
  publish: PublishCounters & {
    /** Transactions read from the outbox and not yet confirmed to it, and their bytes; calls of `publish` that wait. */
    inFlight: number
    inFlightBytes: number
    waiting: number
  }
  apply: ReplicationCounters & {
    /** Subscriptions by state. */
    subscriptions: Record<'pending' | 'catching-up' | 'live' | 'stalled', number>
    /** Transactions of all sources that are known of and not yet applied, and for how many seconds the oldest of them has been waiting. */
    lag: number
    lagSeconds: number
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
  consumerRestarts: 0,
  gaps: 0,
  lost: 0,
})

export const publishCounters = (): PublishCounters => ({
  transactions: 0,
  messages: 0,
  bytes: 0,
  retries: 0,
  rejected: 0,
  timeouts: 0,
})

export type MetricDefinition = {
  /** Of the instrument, by OpenTelemetry's conventions. */
  readonly name: string
  readonly kind: 'counter' | 'gauge'
  readonly unit: string
  readonly description: string
  /** With an object, one value for each state. */
  read(metrics: Metrics): number | Record<string, number>
}

const defineMetric = (
  kind: MetricDefinition['kind'],
  name: string,
  unit: string,
  description: string,
  read: MetricDefinition['read'],
): MetricDefinition => ({ name: `enmesh.${name}`, kind, unit, description, read })

/** All there are: the README has this table, and a test compares. */
export const metricDefinitions: readonly MetricDefinition[] = [
  defineMetric(
    'counter',
    'publish.transactions',
    '{transaction}',
    'Acknowledged wholly by our leaf.',
    (m) => m.publish.transactions,
  ),
  defineMetric(
    'counter',
    'publish.messages',
    '{message}',
    'Acknowledged by our leaf, one for each table of a transaction.',
    (m) => m.publish.messages,
  ),
  defineMetric('counter', 'publish.bytes', 'By', 'Of those messages, without headers.', (m) => m.publish.bytes),
  defineMetric(
    'counter',
    'publish.retries',
    '{retry}',
    'Times that sending was interrupted and the stream looked at again.',
    (m) => m.publish.retries,
  ),
  defineMetric(
    'counter',
    'publish.rejected',
    '{transaction}',
    'That can never be sent: they stay in the outbox.',
    (m) => m.publish.rejected,
  ),
  defineMetric(
    'counter',
    'publish.timeouts',
    '{call}',
    'Calls of publish that were not acknowledged in time.',
    (m) => m.publish.timeouts,
  ),
  defineMetric(
    'gauge',
    'publish.in_flight',
    '{transaction}',
    'Read from the outbox and not yet confirmed to it.',
    (m) => m.publish.inFlight,
  ),
  defineMetric('gauge', 'publish.in_flight_bytes', 'By', 'Of those transactions.', (m) => m.publish.inFlightBytes),
  defineMetric('gauge', 'publish.waiting', '{call}', 'Calls of publish that wait.', (m) => m.publish.waiting),
  defineMetric('counter', 'apply.transactions', '{transaction}', 'Applied.', (m) => m.apply.applied),
  defineMetric('counter', 'apply.batches', '{batch}', 'Database transactions that took them.', (m) => m.apply.batches),
  defineMetric('counter', 'apply.bytes', 'By', 'Of messages received and dealt with.', (m) => m.apply.bytes),
  defineMetric(
    'counter',
    'apply.duplicates',
    '{transaction}',
    'That came a second time, or were our own, and were not applied again.',
    (m) => m.apply.duplicates,
  ),
  defineMetric(
    'counter',
    'apply.retries',
    '{batch}',
    'That the database refused and that were tried again.',
    (m) => m.apply.retries,
  ),
  defineMetric(
    'counter',
    'apply.consumer_restarts',
    '{consumer}',
    'Made anew: after an outage, or because something was lost on the way.',
    (m) => m.apply.consumerRestarts,
  ),
  defineMetric(
    'counter',
    'apply.gaps',
    '{gap}',
    'Ranges of transactions that were gone before they were read.',
    (m) => m.apply.gaps,
  ),
  defineMetric('counter', 'apply.lost', '{transaction}', 'In those gaps.', (m) => m.apply.lost),
  defineMetric('gauge', 'apply.lag', '{transaction}', 'Known of and not yet applied.', (m) => m.apply.lag),
  defineMetric(
    'gauge',
    'apply.lag_time',
    's',
    'For which the oldest of them has been waiting.',
    (m) => m.apply.lagSeconds,
  ),
  defineMetric(
    'gauge',
    'apply.subscriptions',
    '{subscription}',
    'By enmesh.state: pending, catching-up, live, stalled.',
    (m) => m.apply.subscriptions,
  ),
  defineMetric('gauge', 'apply.quarantined', '{message}', 'Set aside.', (m) => m.apply.quarantined),
]
