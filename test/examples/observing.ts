// The example of observability in the README: channels, tracing, metrics, logs and progress. Tests compile and run it.

import { subscribe, tracingChannel } from 'node:diagnostics_channel'
import { metrics } from '@opentelemetry/api'
import pino from 'pino'
import { ClusterManager, type ClusterOptions, type Traced } from '../../lib/index.ts'

export function openObserved(options: ClusterOptions, log = pino()) {
  // From anywhere in the process, without access to the manager:
  subscribe('enmesh:replication:gap', (message) => log.warn(message, 'transactions are lost'))
  const batchOf = (message: unknown) => (message as Traced['apply']).batch.transactions
  tracingChannel('enmesh:apply').subscribe({
    start: (message) => log.debug({ traces: batchOf(message).map(({ trace }) => trace?.traceparent) }, 'applying'),
    asyncEnd: (message) => log.debug({ count: batchOf(message).length }, 'applied'),
    error: (message) => log.error(message, 'the database refused a batch'),
    end() {},
    asyncStart() {},
  })
  return ClusterManager.open({
    ...options,
    logger: log,
    meter: metrics.getMeter('my-database'),
    listeners: { progress: ({ task, done, total }) => log.info({ done, total }, task) },
  })
}
