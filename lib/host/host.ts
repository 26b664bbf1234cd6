// The port to the database: what it gives us, and the transactions that pass between it and us.

import type { TraceContext } from '../observe/trace-context.ts'

/**
 * Fixed-width text that sorts by time: 12 hexadecimal digits of milliseconds since 1970, 6 of a counter within the
 * millisecond, and the node's name, which breaks ties: `019a1b2c3d4e-000000-node1`.
 */
export type Timestamp = string

/** A primary key value. */
export type PrimaryKey = string | number | bigint

/**
 * One write of a transaction. `insert` and `upsert` carry whole records, `update` only the attributes it sets,
 * `delete` the ids.
 *
 * So that every database converges, `apply` must let the last writer win by stamp: an insert or upsert replaces the record
 * when its stamp is higher; an update of an absent record upserts, and stamps are kept per attribute where they differ from
 * the record's, so that concurrent updates of different attributes both survive; a delete leaves a stamped tombstone for at
 * least as long as the streams are retained.
 */
export type Write = RecordWrite | DeleteWrite

export type RecordWrite = {
  operation: 'insert' | 'update' | 'upsert'
  database: string
  table: string
  /** Each record contains its primary key. */
  records: Record<string, unknown>[]
}

export type DeleteWrite = { operation: 'delete'; database: string; table: string; ids: PrimaryKey[] }

/** Where a transaction that came from another node was committed first, and which nodes it has passed. */
export type Origin = {
  node: string
  /** Incarnation of the origin's stream, and the position in it; absent from nodes that have no epochs. */
  epoch?: string
  sequence?: number
  /** Names of the nodes that handed it on, in order. */
  relayedBy: string[]
}

/** A transaction as the database committed it. `id` is unique for ever; `timestamp` was taken by `cluster.timestamp()` inside the commit. */
export type Transaction = {
  id: string
  timestamp: Timestamp
  user?: string
  writes: Write[]
  /** W3C trace context, when the host gives one; an invalid one is left out. Kept in the outbox, and given to whoever applies. */
  trace?: TraceContext
  /** Only on transactions that we handed to the host for republishing; kept in the outbox as it is. */
  origin?: Origin
}

/** A remote stream: the transactions of one table committed on one node. */
export type RemoteTable = { node: string; database: string; table: string }

/** A transaction of another node, with the node that committed it and its position in the source. */
export type RemoteTransaction = Transaction & { origin: Origin; sequence: number }

/** Inclusive range of sequences. */
export type SequenceRange = [from: number, to: number]

/**
 * How far a source has been applied. The host stores it as it is, in the same database transaction as the data, and gives it
 * back; only `epoch` and `sequence` mean anything to it.
 */
export type Checkpoint = {
  /** Incarnation of the remote stream; '' when the other node has none, or until the first message says. */
  epoch: string
  /** The last sequence of the remote stream that was applied or passed over. */
  sequence: number
  /** Id of the message at `sequence`, when that is what was read last: another one there means that the stream was rewound. */
  lastMessageId?: string
  /** What came through this source from which origin: `[origin node][epoch]` to ranges. For de-duplication. */
  applied?: Record<string, Record<string, SequenceRange[]>>
  /** `start_time` that this subscription was started with, ISO 8601. */
  startTime?: string
  /** Up to here a replay is under way that passes the de-duplication. */
  replayUntil?: number
  /** What is in quarantine, passed over and not applied: `[epoch]` to ranges. */
  quarantined?: Record<string, SequenceRange[]>
  /** Gaps so far, and the transactions in them. */
  gaps?: { count: number; lost: number }
}

/** Remote transactions to be applied, all of them and `checkpoint`, in ONE transaction of the database. */
export type Batch = {
  source: RemoteTable
  /** In the order of the source; may be empty. */
  transactions: RemoteTransaction[]
  checkpoint: Checkpoint
  /** To be put into the outbox by the same database transaction, in this order, behind what is there. */
  relay?: Transaction[]
}

/** How far a table's own stream is known to hold our transactions: all of the table up to and including `id`. */
export type PublishedPosition = { database: string; table: string; epoch: string; sequence: number; id: string }

export type TableDescription = { database: string; table: string; primaryKey: string; attributes: string[] }

/**
 * What a database gives us. Every method may reject; we retry with back-off and report it.
 * A host without the three outbox methods publishes in commit order and loses what lies between its commit and our
 * acknowledgement when it dies.
 */
export interface Host {
  /** `timestamp`: the highest stamp the database holds, so that ours stay above it after a restart. */
  info(): { version: string; operationsApiPort?: number; timestamp?: Timestamp }
  describe(): Promise<TableDescription[]>
  /** And its database; idempotent. */
  createTable(table: TableDescription): Promise<void>
  /** All of the batch and its checkpoint in one transaction of the database; rejects if that did not commit. */
  apply(batch: Batch): Promise<void>
  /** What `apply` stored last for this source. */
  loadCheckpoint(source: RemoteTable): Promise<Checkpoint | undefined>
  /** A subscription was removed: drop its checkpoint. Idempotent. */
  deleteCheckpoint(source: RemoteTable): Promise<void>

  /**
   * The outbox, oldest first, in the order of commit; with `after`, only what lies behind that transaction (a host that
   * ignores `after` is slower, not wrong). Reading may overlap with commits: what is committed later comes in a later call.
   */
  readOutbox?(after?: { id: string; timestamp: Timestamp }): AsyncIterable<Transaction>
  /**
   * Store `positions` (one entry a table, replacing the one before) and remove from the outbox everything up to and
   * including `upTo`, in one transaction of the database. Without `upTo` nothing is removed. `keep` names
   * transactions that are too large to be sent: they stay, for whoever looks after the database.
   */
  confirmPublished?(
    positions: PublishedPosition[],
    upTo?: { id: string; timestamp: Timestamp },
    keep?: string[],
  ): Promise<void>
  /** What `confirmPublished` stored last for this table. */
  publishedPosition?(database: string, table: string): Promise<PublishedPosition | undefined>
}
