// Node's diagnostics_channel: the events, and what takes time, for observers of the process that never see the manager. Costs
// one look while nobody has subscribed.

import { type Channel, channel, type TracingChannel, tracingChannel } from 'node:diagnostics_channel'
import type { EventName } from './events.ts'
import type { Batch, Transaction } from './host.ts'

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
const channels = new Map<EventName, Channel>()

function made<Key, Value>(known: Map<Key, Value>, key: Key, make: () => Value): Value {
  const value = make()
  known.set(key, value)
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
  const span = spans.get(name) ?? made(spans, name, () => tracingChannel<string, object>(`enmesh:${name}`))
  return isTraced(span) ? span.tracePromise(work, context()) : work()
}

/** On `enmesh:<event>`: the payload, and `teller`, the name of the node that tells it. */
export function tellChannel(event: EventName, teller: string, payload: object): void {
  const told = channels.get(event) ?? made(channels, event, () => channel(`enmesh:${event}`))
  if (told.hasSubscribers) told.publish({ teller, ...payload })
}
