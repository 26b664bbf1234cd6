// The messages between the run and the process of a node, over Node's IPC channel.

import type { DatabaseFault } from './faulty-host.ts'

/** The only argument of a node's process, as JSON. */
export type NodeSetup = {
  /** The first name of the node; its file may have another one. */
  name: string
  /** Number of this start of the node; it is part of all keys and journal ids. */
  start: number
  directory: string
  configFile: string
  seed: number
  maxClockDrift: number
}

export type Request =
  /** Starts or stops the writers. */
  | { ask: 'write'; on: boolean }
  /** Sets the clock of this node ahead by this many ms. */
  | { ask: 'clock'; offset: number }
  /** Gives timestamps of the future new values. Answers with a list of `Restamped`. */
  | { ask: 'restamp' }
  /** Begins a fault of the database of this node, or ends it. */
  | { ask: 'database'; fault?: DatabaseFault | undefined }
  /** Writes once to every table. Answers with the key. */
  | { ask: 'mark' }
  /** Replays the quarantine. Answers with the number of transactions that remain in it. */
  | { ask: 'replay' }
  /** Answers with `cluster.subscriptions()`. */
  | { ask: 'subscriptions' }
  /** Compares a table with that of another node, without a repair. Answers with the `VerifyResult`. */
  | { ask: 'verify'; node: string; table: string }
  /** Ends the subscriptions of another node. */
  | { ask: 'remove'; node: string }
  /** Removes all but the last `keep` transactions of the local stream of a table. */
  | { ask: 'purge'; table: string; keep: number }

export type ToNode = Request & { number: number }

export type FromNode =
  | { tell: 'ready' }
  /** A write was committed, with its outbox entry. */
  | { tell: 'acknowledged'; key: string; tables: string[] }
  /** A remote batch was committed. `source`: first name of the node; `last`: key of its last write; `at`: the system's time. */
  | { tell: 'applied'; source: string; table: string; at: number; last: string }
  | { tell: 'answer'; number: number; value?: unknown; error?: string }
  /** A broken invariant. */
  | { tell: 'violation'; text: string }
