// Timestamps of a node for its other threads, and for other processes that commit into the same database.

import { systemTimers } from '../util/timers.ts'
import { SharedPosition } from './clock-position.ts'
import type { Timestamp } from './host.ts'
import { HybridClock, makeTimestamp, wallTimeOf } from './hybrid-clock.ts'

/** Send it to other threads with `workerData` or `postMessage`. `memory` is opaque. */
export type TimestampSource = { readonly node: string; readonly memory: SharedArrayBuffer }

/**
 * Issues timestamps of a node in another thread: each is higher than every timestamp that any thread of the node has issued or the manager has
 * seen before. `timestamp` throws restamping while `ClusterManager.restamp` runs, and closed when the manager closes.
 */
export function timestampsFrom({ node, memory }: TimestampSource): { timestamp(): Timestamp } {
  const position = new SharedPosition(memory)
  const make = (time: number, counter: number) => makeTimestamp(time, counter, node)
  return { timestamp: () => position.next(systemTimers.now(), make) }
}

/**
 * A timestamp of `node` at wall time, or just above `last` if that is not lower. `last` is the highest timestamp in the database, undefined when
 * it has none. Timestamps are unique if every process calls it in an exclusive write transaction, in which it also stores the
 * result as the highest timestamp. Throws a TypeError for an invalid `last`.
 */
export function timestampAfter(last: Timestamp | undefined, node: string): Timestamp {
  const clock = new HybridClock(node, 0)
  if (last !== undefined) clock.resume(checkedTimestamp(last))
  return clock.timestamp()
}

/** Returns a valid timestamp, throws a TypeError for another text: continuing without it could repeat timestamps. */
export function checkedTimestamp(timestamp: Timestamp): Timestamp {
  if (Number.isNaN(wallTimeOf(timestamp))) throw new TypeError(`not a valid timestamp: '${timestamp}'`)
  return timestamp
}
