// The values of `cluster.metrics()`: counters since the manager was opened, and current gauges; and their table of definitions.

import type { RemoteTable } from '../host/host.ts'

/** Counters of all subscriptions of a node together. */
export type ReplicationCounters = {
  /** Transactions applied, and database transactions that contained them. */
  applied: number
  batches: number
  /** Bytes of messages that were received and processed. */
  bytes: number
  /** Transactions that arrived again, by whatever path, or came from the local node, and were not applied. */
  duplicates: number
  /** Batches that the database rejected and that were retried. */
  retries: number
  /** Consumers created again: after an outage, or because messages were lost on the way. */
  consumerRestarts: number
  /** Gaps, and transactions in them. */
  gaps: number
  lost: number
  /** Rows copied from remote nodes. */
  copied: number
  /** Writes to absent rows that were ignored because they are older than a tombstone that was dropped. */
  refusedOld: number
  /** Writes to tables that are not subscribed, in transactions of HarperDB that write several tables. */
  notSubscribed: number
}

export type PublishCounters = {
  /** Transactions whose parts the local leaf has all acknowledged; messages in local streams; bytes of transactions. */
  transactions: number
  messages: number
  bytes: number
  /** Interruptions of appending, after which the stream was checked again. */
  retries: number
  /** Transactions that can never be published. */
  rejected: number
  /** Rows that nodes of enmesh get, and HarperDB does not: no message can hold them. */
  withheld: number
  /** Calls of `publish` that were not acknowledged in time. */
  timeouts: number
}

export type Metrics = {
  publish: PublishCounters & {
    /** Transactions read from the outbox and not yet confirmed to it, and their bytes; waiting calls of `publish`. */
    inFlight: number
    inFlightBytes: number
    waiting: number
  }
  apply: ReplicationCounters & {
    /** Subscriptions by state. */
    subscriptions: Record<'pending' | 'copying' | 'catching-up' | 'live' | 'stalled' | 'paused', number>
    /** Known transactions of all sources that are not applied yet, and seconds for which the oldest of them has been waiting. */
    lag: number
    lagSeconds: number
    /** Messages in quarantine. */
    quarantined: number
  }
}

/** The part of the status of a subscription that metrics read. */
export type TableStatus = {
  source: RemoteTable
  state: string
  lag: number
  lagSeconds: number
  quarantined: number
  unrepairedGaps?: number
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
  copied: 0,
  refusedOld: 0,
  notSubscribed: 0,
})

type SubscriptionGauges = Pick<Metrics['apply'], 'subscriptions' | 'lag' | 'lagSeconds'>

export function subscriptionGauges(
  statuses: readonly { state: keyof SubscriptionGauges['subscriptions'] | 'ended'; lag: number; lagSeconds: number }[],
): SubscriptionGauges {
  const gauges = {
    subscriptions: { pending: 0, copying: 0, 'catching-up': 0, live: 0, stalled: 0, paused: 0 },
    lag: 0,
    lagSeconds: 0,
  }
  for (const { state, lag, lagSeconds } of statuses) {
    if (state !== 'ended') gauges.subscriptions[state]++
    gauges.lag += lag
    gauges.lagSeconds = Math.max(gauges.lagSeconds, lagSeconds)
  }
  return gauges
}

export const publishCounters = (): PublishCounters => ({
  transactions: 0,
  messages: 0,
  bytes: 0,
  retries: 0,
  rejected: 0,
  withheld: 0,
  timeouts: 0,
})

/** What the instruments of all metrics have. */
type InstrumentDefinition = {
  /** Name of the instrument, by OpenTelemetry's conventions. */
  readonly name: string
  readonly unit: string
  readonly description: string
}

/** An object has one value for each state. */
export type MetricValue = number | Record<string, number>

/** `scope`: what has a value of its own; the attributes of the observations follow from it. */
export type MetricDefinition = InstrumentDefinition &
  (
    | { readonly scope: 'node'; readonly kind: 'counter' | 'gauge'; read(metrics: Metrics): MetricValue }
    | { readonly scope: 'table'; readonly kind: 'gauge'; read(status: TableStatus): MetricValue }
    /** Upper bounds of the buckets. */
    | { readonly scope: 'transaction'; readonly kind: 'histogram'; readonly boundaries: readonly number[] }
  )

const defineMetric = (
  kind: 'counter' | 'gauge',
  name: string,
  unit: string,
  description: string,
  read: (metrics: Metrics) => MetricValue,
): MetricDefinition => ({ scope: 'node', name: `enmesh.${name}`, kind, unit, description, read })

const defineTableMetric = (
  name: string,
  unit: string,
  description: string,
  read: (status: TableStatus) => MetricValue,
): MetricDefinition => ({ scope: 'table', name: `enmesh.table.${name}`, kind: 'gauge', unit, description, read })

/** Seconds from commit to applied: it is recorded, not read. */
export const delayDefinition = {
  scope: 'transaction',
  name: 'enmesh.apply.delay',
  kind: 'histogram',
  unit: 's',
  description: 'Seconds from the commit at its origin to the commit here, estimated from the clocks of two nodes.',
  boundaries: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60, 600, 3_600, 86_400],
} as const satisfies MetricDefinition

/** All metrics. A test compares them with the table in the README. */
export const metricDefinitions: readonly MetricDefinition[] = [
  defineMetric(
    'counter',
    'publish.transactions',
    '{transaction}',
    'Transactions whose parts the local leaf has all acknowledged.',
    (m) => m.publish.transactions,
  ),
  defineMetric(
    'counter',
    'publish.messages',
    '{message}',
    'Messages in local streams, each with one or more transactions of one table.',
    (m) => m.publish.messages,
  ),
  defineMetric('counter', 'publish.bytes', 'By', 'Bytes of the transactions in them.', (m) => m.publish.bytes),
  defineMetric(
    'counter',
    'publish.retries',
    '{retry}',
    'Interruptions of appending, after which the stream was checked again.',
    (m) => m.publish.retries,
  ),
  defineMetric(
    'counter',
    'publish.rejected',
    '{transaction}',
    'Transactions that can never be published: they stay in the outbox.',
    (m) => m.publish.rejected,
  ),
  defineMetric(
    'counter',
    'publish.withheld',
    '{row}',
    'Rows that nodes of enmesh get, and HarperDB does not: no message can hold them.',
    (m) => m.publish.withheld,
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
    'Transactions read from the outbox and not yet confirmed to it.',
    (m) => m.publish.inFlight,
  ),
  defineMetric(
    'gauge',
    'publish.in_flight_bytes',
    'By',
    'Bytes of those transactions.',
    (m) => m.publish.inFlightBytes,
  ),
  defineMetric('gauge', 'publish.waiting', '{call}', 'Waiting calls of publish.', (m) => m.publish.waiting),
  defineMetric('counter', 'apply.transactions', '{transaction}', 'Transactions applied.', (m) => m.apply.applied),
  defineMetric(
    'counter',
    'apply.batches',
    '{batch}',
    'Database transactions that contained them.',
    (m) => m.apply.batches,
  ),
  defineMetric(
    'counter',
    'apply.bytes',
    'By',
    'Bytes of messages that were received and processed.',
    (m) => m.apply.bytes,
  ),
  defineMetric(
    'counter',
    'apply.duplicates',
    '{transaction}',
    'Transactions that arrived again, or came from the local node, and were not applied.',
    (m) => m.apply.duplicates,
  ),
  defineMetric(
    'counter',
    'apply.retries',
    '{batch}',
    'Batches that the database rejected and that were retried.',
    (m) => m.apply.retries,
  ),
  defineMetric(
    'counter',
    'apply.consumer_restarts',
    '{consumer}',
    'Consumers created again: after an outage, or because messages were lost on the way.',
    (m) => m.apply.consumerRestarts,
  ),
  defineMetric(
    'counter',
    'apply.gaps',
    '{gap}',
    'Ranges of transactions that were gone before they were read.',
    (m) => m.apply.gaps,
  ),
  defineMetric('counter', 'apply.lost', '{transaction}', 'Transactions in those gaps.', (m) => m.apply.lost),
  defineMetric('counter', 'apply.copied', '{row}', 'Rows copied from remote nodes.', (m) => m.apply.copied),
  defineMetric(
    'counter',
    'apply.refused_old',
    '{write}',
    'Writes to absent rows that are older than a tombstone that was dropped, and were ignored.',
    (m) => m.apply.refusedOld,
  ),
  defineMetric(
    'counter',
    'apply.not_subscribed',
    '{write}',
    'Writes to tables that are not subscribed, in transactions of HarperDB; they were not applied.',
    (m) => m.apply.notSubscribed,
  ),
  defineMetric(
    'gauge',
    'apply.lag',
    '{transaction}',
    'Known transactions that are not applied yet.',
    (m) => m.apply.lag,
  ),
  defineMetric(
    'gauge',
    'apply.lag_time',
    's',
    'Seconds for which the oldest of them has been waiting.',
    (m) => m.apply.lagSeconds,
  ),
  defineMetric(
    'gauge',
    'apply.subscriptions',
    '{subscription}',
    'Subscriptions by enmesh.state: pending, copying, catching-up, live, stalled, paused.',
    (m) => m.apply.subscriptions,
  ),
  defineMetric('gauge', 'apply.quarantined', '{message}', 'Messages in quarantine.', (m) => m.apply.quarantined),
  delayDefinition,
  defineTableMetric('lag', '{transaction}', 'Known transactions of the table that are not applied yet.', (t) => t.lag),
  defineTableMetric('lag_time', 's', 'Seconds for which the oldest of them has been waiting.', (t) => t.lagSeconds),
  defineTableMetric('state', '{subscription}', '1 for the enmesh.state of the subscription.', (t) => ({
    [t.state]: 1,
  })),
  defineTableMetric('quarantined', '{message}', 'Messages of the table in quarantine.', (t) => t.quarantined),
  defineTableMetric(
    'unrepaired_gaps',
    '{gap}',
    "Gaps since the last complete copy of the source's rows.",
    (t) => t.unrepairedGaps ?? 0,
  ),
]
