// The port to the database: the methods that a host implements, and the transactions that pass through them in both directions.

import type { TraceContext } from './trace-context.ts'

/**
 * Hybrid logical clock value as fixed-width text that sorts by time: 12 hexadecimal digits of milliseconds since 1970, 6 of
 * a counter within the millisecond, and the node's name, which breaks ties: `019a1b2c3d4e-000000-node1`.
 */
export type Timestamp = string

export type PrimaryKey = string | number | bigint

/**
 * One write of a transaction. `insert` and `upsert` carry whole records, `update` only the attributes that it sets, and the
 * primary key; `delete` carries primary keys.
 *
 * `apply` must let the last writer win by timestamp, so that every database converges:
 * - An insert or upsert replaces the record if its timestamp is higher.
 * - An update of an absent record upserts. Timestamps are kept per attribute where they differ from the record's, so
 *   that concurrent updates of different attributes both survive.
 * - A delete leaves a tombstone with its timestamp for at least as long as the streams are retained.
 *
 * `mergeRow` and `rowChanges` implement this rule.
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

/** The node that committed a transaction first, and the nodes that relayed it. */
export type Origin = {
  node: string
  /** Epoch of the origin's stream, and the running number of the transaction in that epoch, from 1. Absent if the origin has no epochs. */
  epoch?: string
  index?: number
  /** Names of the nodes that relayed the transaction, in order. */
  relayedBy: string[]
}

/**
 * A transaction as the database committed it. `id` is a non-empty, globally unique string of one line and at most 1024
 * characters. `timestamp` comes from `cluster.timestamp()`, called inside the write transaction.
 */
export type Transaction = {
  id: string
  timestamp: Timestamp
  /** Name of the user who wrote. */
  user?: string
  writes: Write[]
  /** W3C trace context, optional. An invalid one is dropped. It is stored in the outbox and passed to `apply` on the peers. */
  trace?: TraceContext
  /** Only on relayed transactions (`Batch.relay`). The outbox stores it unchanged. */
  origin?: Origin
  /**
   * Only on transactions of a restamp. `apply` passes it to `mergeRow`: stored timestamps in the range are lower than any other. The
   * outbox stores it unchanged.
   */
  voids?: VoidedRange
}

/** The timestamps of `node` from `from` to `to`, inclusive: it issued them while its clock was wrong, and withdrew them. */
export type VoidedRange = { node: string; from: Timestamp; to: Timestamp }

/** A remote stream: the transactions of one table that one remote node committed. */
export type RemoteTable = { node: string; database: string; table: string }

/**
 * A transaction received from a remote node: `origin` committed it first. `sequence` is that of its message in the stream that it was
 * read from, `index` its running number in the epoch of that stream.
 */
export type RemoteTransaction = Transaction & { origin: Origin; sequence: number; index: number }

/** Inclusive range of sequences, or of running numbers. */
export type SequenceRange = [from: number, to: number]

/** Applied transactions of one epoch, by running number, inclusive. `newest`: the newest of their timestamps, as far as these are known. */
export type AppliedRange = [from: number, to: number, newest?: Timestamp]

/**
 * How far a remote table has been applied. The host stores it unchanged, in the same database transaction as the rows, and
 * returns it from `loadCheckpoint`. A host needs to understand `epoch` and `sequence` at most.
 */
export type Checkpoint = {
  /** Version of the format. Present in what the database stores. */
  v?: number
  /** Epoch of the remote stream; '' if the peer has no epochs, or before the first message. */
  epoch: string
  /** The last message of the remote stream all of whose transactions were applied or skipped. */
  sequence: number
  /** The last transaction that was applied or skipped, by its running number in the epoch. Absent before the first message was seen. */
  index?: number
  /** `index` lies in the message after `sequence`. */
  partial?: true
  /** Id of the transaction at `index`, if that was read last. A different id there means that the stream was rewound. */
  lastId?: string
  /** The transaction at `index` was applied in another epoch or stream. It is behind `sequence` here, if at all, and was not read there yet. */
  unverified?: true
  /** What arrived through this source, by origin: `[origin node][epoch]` to ranges. Used for deduplication. */
  applied?: Record<string, Record<string, AppliedRange[]>>
  /** `start_time` that this subscription started with, ISO 8601. */
  startTime?: string
  /** A replay that bypasses deduplication is in progress up to this sequence. */
  replayUntil?: number
  /** Quarantined messages, skipped and not applied: `[epoch]` to ranges. */
  quarantined?: Record<string, SequenceRange[]>
  /**
   * Transactions of the source's stream that this node does not have: lost in a gap, or discarded from quarantine. `[epoch]` to ranges of
   * running numbers. A copy of all rows removes them.
   */
  missing?: Record<string, SequenceRange[]>
  /** Number of gaps so far, and of the transactions lost in them. */
  gaps?: { count: number; lost: number }
  /** Number of gaps since the last complete copy of the source's rows. `missing` has discarded transactions too, and none that were in no stream. */
  unrepairedGaps?: number
  /** Voided timestamps that this source named, oldest first. */
  voided?: VoidedTransactions[]
  /** A copy of the source's rows that is under way, or is to begin. */
  copy?: CopyPosition
  /** Rows of the source were copied that are to be announced to the subscribers of the local table. */
  unannounced?: true
  /** The last request (`copy`, `start_time`) that this subscription has begun: it is not begun twice. */
  request?: string
  /** ms since 1970: everything that the source had then was applied. Stored now and then. */
  caughtUpAt?: number
  /** ms since 1970: transactions were lost when it had not been caught up since then, longer than `tombstoneAge`. Deletes may be among them. */
  staleSince?: number
}

/**
 * Why rows are copied. `initial`: the subscription is new. `gap`: transactions were lost. `checkpoint_lost`: the local database lost its
 * checkpoint. `table_created`: the table was dropped here and created again. `database_restored`: the local database is an older copy, and
 * other nodes have transactions of this node that it does not have. `requested`: by the operator. `source_changed`: the source copied rows,
 * which its stream does not have. `table_replaced`: the local table was emptied, and copied from another node.
 */
export type CopyReason =
  | 'initial'
  | 'gap'
  | 'checkpoint_lost'
  | 'table_created'
  | 'database_restored'
  | 'requested'
  | 'source_changed'
  | 'table_replaced'

/** How far the rows of a source have been copied, in the order of its `readRows`. */
export type CopyPosition = {
  reason: CopyReason
  /** The key of the last copied row, encoded as text. Absent: from the first row. */
  after?: string
  /** Number of rows copied so far. */
  rows: number
  /** The table was empty when the copy began, or the operator asked for it: rows at or below the table's horizon are copied too. */
  acceptOld?: boolean
  /** The local table is to be emptied before the first row, or was emptied. */
  replace?: 'requested' | 'emptied'
  /** The local table was emptied, for a copy from another node: what was applied of this source is gone until this copy ends. */
  emptied?: true
  /** ms since 1970: rows with timestamps of the future were left out, and the copy is to run again then. */
  retryAt?: number
}

/**
 * Transactions of one table that their origin withdrew: those with a timestamp in the range, and a position before `first` in
 * `epoch`, or any position in one of `olderEpochs`. `last` is the last transaction that named the range.
 */
export type VoidedTransactions = VoidedRange & { epoch: string; first: number; last: number; olderEpochs: string[] }

/** Remote transactions to apply in ONE transaction of the database, together with `checkpoint` and `relay`. */
export type Batch = {
  source: RemoteTable
  /**
   * In the order of the source. Empty if only the checkpoint moves. A transaction of a HarperDB node may write other tables of the
   * source's database too.
   */
  transactions: RemoteTransaction[]
  checkpoint: Checkpoint
  /** To be appended to the outbox by the same database transaction, in this order. A host without an outbox ignores it. */
  relay?: Transaction[]
  /** The transactions are copied rows: old writes at their own timestamps. For information: they are applied like all others. */
  isCopy?: boolean
  /** Writes at or below the table's horizon to absent rows are applied as well: `mergeRow` gets no horizon. See `Host.horizon`. */
  acceptOld?: boolean
  /** The table's horizon is at least this from now on. Stored in the same transaction, after the writes. */
  horizon?: Timestamp
}

/** The argument of `Host.emptyTable`. */
export type EmptiedTable = Pick<Batch, 'source' | 'checkpoint' | 'horizon'>

/** What `Host.apply` may resolve with. */
export type ApplyResult = {
  /** Number of rows that are different now. Absent: unknown. */
  changedRows?: number
  /** Number of writes to absent rows that were ignored because of the horizon. */
  ignoredWrites?: number
}
// biome-ignore lint/suspicious/noConfusingVoidType: a host that returns nothing is `async apply() {}`.
export type ApplyOutcome = ApplyResult | void

/**
 * A position in the local stream of a table: the stream contains all transactions of the table up to and including `id`, whose running
 * number in the epoch is `index`. `sequence`: the last message all of whose transactions are at or before it. `partial`: `index` lies in
 * the message after that.
 */
export type PublishedPosition = {
  database: string
  table: string
  epoch: string
  sequence: number
  index: number
  partial?: true
  id: string
}

/** The argument of `Host.confirmPublished`. */
export type PublishConfirmation = {
  positions: PublishedPosition[]
  upTo?: { id: string; timestamp: Timestamp } | undefined
  keep?: string[] | undefined
}

/** A table of the local database. */
export type TableName = { database: string; table: string }

export type TableDescription = { database: string; table: string; primaryKey: string; attributes: string[] }

/** Attributes that a table lacks. */
export type NewAttributes = TableName & { attributes: string[] }

/** A row as `mergeRow` computes it and a host stores it. Without `record` it is a tombstone. */
export type StoredRow = {
  /** Timestamp of the newest put or delete; '' if only updates have arrived. */
  timestamp: Timestamp
  /** The visible record. */
  record?: Record<string, unknown>
  /** Attributes set by updates newer than `timestamp`, each with the timestamp of its update. */
  updated?: Record<string, Timestamp>
}

/** A stored row with its primary key, as `Host.readRows` returns it. */
export type KeyedRow = { key: PrimaryKey; row: StoredRow }

/** Rows that `Host.readRows` reads: at most `limit` after this key in the host's order, from the first row on without one; or these keys. */
export type RowSelection =
  | { after?: PrimaryKey | undefined; limit: number; keys?: undefined }
  | { keys: readonly PrimaryKey[] }

/** A row of the database, tombstones included. */
export type TableRow = { database: string; table: string; primaryKey: string; key: PrimaryKey; row: StoredRow }

/** What `Host.restamp` commits in one transaction. */
export type RestampedRows = {
  /** Rows that changed: each replaces the stored one. */
  rows: TableRow[]
  /** To be appended to the outbox, in this order. A host without an outbox ignores them. */
  transactions: Transaction[]
  /** The new value of `Host.lastTimestamp`; lower than the present one. */
  lastTimestamp: Timestamp
}

/** The argument of `Host.restamp`. */
export interface Restamp {
  /** ms since 1970: later timestamps are rewritten. */
  readonly limit: number
  /** Begins a pass over all rows. A host that repeats its database transaction begins another pass. */
  begin(): RestampPass
}

export interface RestampPass {
  /** Called for every row of every table, tombstones included. Rows at or below the limit are not kept in memory. */
  add(row: TableRow): void
  finish(): RestampedRows
}

/**
 * The last argument of every method but `info`. The signal aborts when the result is no longer needed: `hostTimeout` has
 * passed, the caller aborted its operation, or the manager closes. A host may ignore it; one that can cancel a database call, or that
 * holds a lock, ends it and rejects. Present in every call that enmesh makes.
 */
export type HostCallOptions = { signal?: AbortSignal | undefined }

/**
 * What a database implements to take part in a cluster.
 *
 * **Concurrency.** Calls overlap. For each table, one call of `apply`, `loadCheckpoint` and `deleteCheckpoint` runs at a time; calls for
 * different tables run in parallel. Only one iteration of `readOutbox` is open at a time. Everything else, local commits
 * included, may run at the same time.
 *
 * **Rejections.** Every method may reject or throw. During replication the call is logged and repeated with back-off, for as long as it
 * takes; nothing is skipped. During an operation (`describe`, `createTable`) the operation fails with the reason. A rejection may leave
 * open whether the call took effect, for example when the connection to the database was lost during the commit: enmesh reads
 * the stored checkpoint before it repeats an `apply`. It must not leave a part of a transaction.
 *
 * **Time limit.** A call that does not answer within the option `hostTimeout` counts as rejected, and its signal aborts. It may still
 * take effect. Until the host ends it, calls that must not overlap it are not made: those of the same table for `apply`,
 * `loadCheckpoint` and `deleteCheckpoint`; `confirmPublished` and `publishedPosition` of all tables; `readOutbox`. A promise that never
 * settles therefore stalls the table until the manager is opened again.
 *
 * **Outbox.** The three outbox methods are implemented together, or not at all. A host without them publishes in commit
 * order from memory, as far as `maxInFlight` allows: if its process dies, transactions that were committed but not yet acknowledged by
 * the local leaf are lost to the peers.
 */
export interface Host {
  /** The database's version and the port of its HTTP API, as peers see them in `cluster_status`. Synchronous: it must not wait. */
  info(): { version: string; operationsApiPort?: number }
  /**
   * The highest timestamp in the database, of local and of applied transactions; undefined for an empty database. Read once, when the
   * manager opens, so that new timestamps are higher. A rejection makes `ClusterManager.open` reject with server_failed.
   */
  lastTimestamp(options?: HostCallOptions): Promise<Timestamp | undefined>
  /** All tables of all databases that take part. A missing table of a running subscription counts as dropped: the subscription stalls. */
  describe(options?: HostCallOptions): Promise<TableDescription[]>
  /** Creates the table, and its database if that is missing. Idempotent, also for two calls at the same time. */
  createTable(table: TableDescription, options?: HostCallOptions): Promise<void>
  /**
   * Adds these attributes to a table. Idempotent: some may exist already. Called before rows with new attributes are applied, and when
   * nodes meet whose descriptions differ. A rejection is logged and the call repeated; rows are applied meanwhile, and `apply` may
   * reject those that do not fit. Not needed by a host that adds attributes in `apply`.
   */
  alterTable?(table: NewAttributes, options?: HostCallOptions): Promise<void>
  /**
   * Commits rows, checkpoint and `relay` of the batch in one transaction of the database: all of it, or nothing. Rejects a write to a
   * table that does not exist. The same transactions may be passed again after a rejection or a crash: applying them twice changes
   * nothing. May resolve with what changed.
   */
  apply(batch: Batch, options?: HostCallOptions): Promise<ApplyOutcome>
  /** The checkpoint that `apply` stored last for this source. */
  loadCheckpoint(source: RemoteTable, options?: HostCallOptions): Promise<Checkpoint | undefined>
  /** Drops the checkpoint of a removed subscription. Idempotent. */
  deleteCheckpoint(source: RemoteTable, options?: HostCallOptions): Promise<void>

  /**
   * Stored rows of a table, tombstones included. With `limit`: the next ones in an order that never changes (any order of keys will
   * do), fewer than `limit` if the host likes; none at the end only. `after` may name a row that is gone. With `keys`: those of them that
   * exist. Every call sees what is committed when it is called; two calls need not see the same state. Without this method the node
   * serves no copies of its rows, and cannot compare them.
   *
   * A row that was stored without a timestamp has the one of `setBaseTimestamp`, here and in `apply`.
   */
  readRows?(table: TableName, selection: RowSelection, options?: HostCallOptions): Promise<KeyedRow[]>
  /**
   * The timestamp of rows that the database stored before clustering, without a timestamp. Lower than every other, and different on
   * every node, so that two nodes with different rows of one key end equal. Called each time the manager opens with clustering enabled,
   * before the methods that read or write rows, always with the same value. Until then (clustering is disabled) such a row stays
   * without a timestamp, also when an attribute of it is updated: store `LOWEST_TIMESTAMP`, for example, and replace it on reading. Not
   * needed by a host whose rows all have timestamps.
   */
  setBaseTimestamp?(timestamp: Timestamp): void
  /**
   * The table's horizon: the highest timestamp of a tombstone that was dropped, so that an old write cannot bring the row back. Undefined
   * while none was dropped. A host that drops tombstones stores it in the same transaction of the database, drops only those
   * below `cluster.tombstoneLimit()`, passes it to `mergeRow`, and deletes it with the table.
   */
  horizon?(table: TableName, options?: HostCallOptions): Promise<Timestamp | undefined>
  /**
   * In ONE transaction of the database: removes all rows and tombstones of the source's table, stores the checkpoint as `apply` does, and
   * raises the table's horizon to `horizon`, if there is one. The table, its other checkpoints, its published position and
   * the outbox stay. Never overlaps `apply` of the table. Without this method, no table can be replaced by a copy (`replace: true`).
   */
  emptyTable?(emptied: EmptiedTable, options?: HostCallOptions): Promise<void>

  /**
   * The outbox, oldest first, in commit order. With `after`, only the transactions after that one; a host that
   * ignores `after` is slower, not wrong. If the outbox no longer has that transaction, all of it. The consumer may pause for
   * long between two transactions and may stop early. Transactions that are committed or confirmed meanwhile may or may not
   * appear: a later call returns what is missing. `hostTimeout` applies to each `next` and to `return`.
   */
  readOutbox?(after?: { id: string; timestamp: Timestamp }, options?: HostCallOptions): AsyncIterable<Transaction>
  /**
   * In one transaction of the database: stores `positions` (one entry per table, replacing the previous entry), and removes from
   * the outbox every transaction up to and including `upTo`. Without `upTo` nothing is removed. `keep` contains the ids of
   * transactions that can never be sent, for example because they are too large: they stay in the outbox until an
   * operator removes them.
   */
  confirmPublished?(confirmation: PublishConfirmation, options?: HostCallOptions): Promise<void>
  /**
   * Rewrites timestamps of the future, in ONE transaction of the database: calls `restamp.begin()`, passes every row of every table to
   * `add`, calls `finish`, and stores what that returns: the rows, the transactions at the end of the outbox, and the last
   * timestamp. Local commits that took a timestamp before must be visible to it or fail. Idempotent. Without this method
   * `cluster.restamp()` rejects restamp_unsupported.
   */
  restamp?(restamp: Restamp, options?: HostCallOptions): Promise<void>
  /**
   * For a host that does not store its transactions in the outbox while clustering is disabled (`cluster.manifest.enabled`), so that it
   * does not grow for nobody: the timestamp of the last transaction on this table that it committed without an entry in the outbox, stored
   * in the same transaction of the database; undefined before the first one. When it has changed, the stream of the table begins a new
   * epoch, and every subscriber reports a gap and copies what differs. Only for hosts with `readRows`: others cannot repair the gap.
   */
  lastUnrecorded?(table: TableName, options?: HostCallOptions): Promise<Timestamp | undefined>
  /** The position that `confirmPublished` stored last for this table. */
  publishedPosition?(database: string, table: string, options?: HostCallOptions): Promise<PublishedPosition | undefined>
}
