// Node's diagnostics_channel: the events, and what takes time, for observers of the process that never see the manager. Costs
// one look while nobody has subscribed.

import { channel, type TracingChannel, tracingChannel } from 'node:diagnostics_channel'
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

const made = new Map<string, TracingChannel<string, object>>()

function tracing(name: string): TracingChannel<string, object> {
  const known = made.get(name) ?? tracingChannel<string, object>(`enmesh:${name}`)
  made.set(name, known)
  return known
}

const isTraced = ({ start, asyncEnd, error }: TracingChannel<string, object>) =>
  start.hasSubscribers || asyncEnd.hasSubscribers || error.hasSubscribers

/** The same promise, traced if somebody listens. */
export function traced<Name extends keyof Traced, T>(
  name: Name,
  context: () => Traced[Name],
  work: () => Promise<T>,
): Promise<T> {
  const channels = tracing(name)
  return isTraced(channels) ? channels.tracePromise(work, context()) : work()
}

/** On `enmesh:<event>`: the payload, and `node`, the name of the node that tells it, as `teller`. */
export function tellChannel(event: EventName, teller: string, payload: object): void {
  const told = channel(`enmesh:${event}`)
  if (told.hasSubscribers) told.publish({ teller, ...payload })
}
