// Node's diagnostics_channel: the events, and what takes time, for observers of the process that never see the manager. Costs
// one look while nobody has subscribed.

import { type Channel, channel, type TracingChannel, tracingChannel } from 'node:diagnostics_channel'
import type { Batch, Transaction } from '../host/host.ts'

/**
 * `tracing:enmesh:operation`: an operation from its call to its answer. `tracing:enmesh:publish`: a transaction from `publish` to the
 * acknowledgement of our leaf. `tracing:enmesh:apply`: a batch that the database is handed.
 */
export type Traced = {
  operation: { node: string; operation: string }
  publish: { node: string; transaction: Transaction }
  apply: { node: string; batch: Batch }
}

// Kept, because Node forgets those that nobody listens to, and makes them anew each time.
const spans = new Map<keyof Traced, TracingChannel<string, object>>()
const channels = new Map<string, Channel>()

function getOrCreate<Key, Value>(cache: Map<Key, Value>, key: Key, create: () => Value): Value {
  const value = create()
  cache.set(key, value)
  return value
}

const isTraced = ({ start, asyncEnd, error }: TracingChannel<string, object>) =>
  start.hasSubscribers || asyncEnd.hasSubscribers || error.hasSubscribers

/** The same promise, traced if somebody listens. */
export function traced<Name extends keyof Traced, T>(
  name: Name,
  context: () => Traced[Name],
  work: () => Promise<T>,
): Promise<T> {
  const span = spans.get(name) ?? getOrCreate(spans, name, () => tracingChannel<string, object>(`enmesh:${name}`))
  return isTraced(span) ? span.tracePromise(work, context()) : work()
}

/** On `enmesh:<event>`: the payload, and `localNode`, the name of the node that tells it. */
export function publishToChannel(event: string, localNode: string, payload: object): void {
  const eventChannel = channels.get(event) ?? getOrCreate(channels, event, () => channel(`enmesh:${event}`))
  if (eventChannel.hasSubscribers) eventChannel.publish({ localNode, ...payload })
}
