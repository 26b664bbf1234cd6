// Node's diagnostics_channel: events and spans for code in this process that has no reference to the manager. Without subscribers
// it costs one check.

import { type Channel, channel, type TracingChannel, tracingChannel } from 'node:diagnostics_channel'
import type { Batch, Transaction } from '../host/host.ts'

/** The messages on `tracing:enmesh:operation`: an operation from its call to its answer. */
export type OperationMessage = { node: string; operation: string }
/** The messages on `tracing:enmesh:publish`: a transaction from `publish` to the acknowledgement of the local leaf. */
export type PublishMessage = { node: string; transaction: Transaction }
/** The messages on `tracing:enmesh:apply`: a batch while the host applies it. */
export type ApplyMessage = { node: string; batch: Batch }

/** By the last part of the channel's name. */
export type Traced = { operation: OperationMessage; publish: PublishMessage; apply: ApplyMessage }

// Strong references: Node garbage-collects channels without subscribers and would create them again for each message.
const spans = new Map<keyof Traced, TracingChannel<string, object>>()
const channels = new Map<string, Channel>()

function getOrCreate<Key, Value>(cache: Map<Key, Value>, key: Key, create: () => Value): Value {
  const value = create()
  cache.set(key, value)
  return value
}

const isTraced = ({ start, asyncEnd, error }: TracingChannel<string, object>) =>
  start.hasSubscribers || asyncEnd.hasSubscribers || error.hasSubscribers

/** Returns the promise of `work`, traced if the channel has subscribers; `context` runs only then. */
export function traced<Name extends keyof Traced, T>(
  name: Name,
  context: () => Traced[Name],
  work: () => Promise<T>,
): Promise<T> {
  const span = spans.get(name) ?? getOrCreate(spans, name, () => tracingChannel<string, object>(`enmesh:${name}`))
  return isTraced(span) ? span.tracePromise(work, context()) : work()
}

/** Publishes the payload of an event on its channel, with the name of the local node (an `EventMessage`). */
export function publishToChannel(event: string, localNode: string, payload: object): void {
  const eventChannel = channels.get(event) ?? getOrCreate(channels, event, () => channel(`enmesh:${event}`))
  if (eventChannel.hasSubscribers) eventChannel.publish({ localNode, ...payload })
}
