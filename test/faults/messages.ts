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
  | { ask: 'write'; on: boolean }
  /** From now on this node's clock is so many ms ahead. */
  | { ask: 'clock'; offset: number }
  /** Write once more, to every table. Answers with the key. */
  | { ask: 'mark' }
  /** Apply what lies in quarantine. Answers how many still do. */
  | { ask: 'replay' }
  /** Answers with what `cluster.subscriptions()` says. */
  | { ask: 'subscriptions' }
  /** Removes all but the last `keep` transactions of its own stream of a table. */
  | { ask: 'purge'; table: string; keep: number }

export type ToNode = Request & { number: number }

export type FromNode =
  | { tell: 'ready' }
  /** A write was committed, with its outbox entry. */
  | { tell: 'acknowledged'; key: string; tables: string[] }
  /** A batch of another node was committed; `last` is the key of its last write, `at` the true time. */
  | { tell: 'applied'; source: string; table: string; at: number; last: string }
  | { tell: 'answer'; number: number; value?: unknown; error?: string }
  /** Something that must never happen. */
  | { tell: 'violation'; text: string }
