// What the run and a node's process say to each other, over the channel that Node gives a child process.

/** How a node's process is started; its only argument, as JSON. */
export type NodeSetup = {
  name: string
  /** Counts the starts of this node: what it writes and notes bears this number. */
  start: number
  directory: string
  configFile: string
  seed: number
  maxClockDrift: number
}

export type Request =
  /** Write on and on, or stop. */
  | { type: 'write'; on: boolean }
  /** From now on this node's clock is so many ms ahead. */
  | { type: 'clock'; offset: number }
  /** Write once more, to every table. Answers with the key. */
  | { type: 'mark' }
  /** Apply what lies in quarantine. Answers how many still do. */
  | { type: 'replay' }
  /** Answers with what `cluster.subscriptions()` says. */
  | { type: 'subscriptions' }
  /** Removes all but the last `keep` transactions of its own stream of a table. */
  | { type: 'purge'; table: string; keep: number }

export type ToNode = Request & { number: number }

export type FromNode =
  | { type: 'ready' }
  /** A write was committed, with its outbox entry. */
  | { type: 'acknowledged'; key: string; tables: string[] }
  /** A batch of another node was committed; `last` is the key of its last write, `at` the true time. */
  | { type: 'applied'; source: string; table: string; at: number; last: string }
  | { type: 'answer'; number: number; value?: unknown; error?: string }
  /** Something that must never happen. */
  | { type: 'violation'; text: string }
