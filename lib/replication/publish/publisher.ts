// Publishes the outbox to the streams of the local leaf: in commit order, one stream for each table, every message acknowledged.

import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Host, Transaction } from '../../host/host.ts'
import { createOutbox, type Outbox } from '../../host/outbox.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import { type Metrics, type PublishCounters, publishCounters } from '../../observe/metrics.ts'
import { IdQueue } from '../../util/id-queue.ts'
import { SharedCall } from '../../util/shared-call.ts'
import { delay, systemTimers } from '../../util/timers.ts'
import type { StreamPosition } from '../stream-metadata.ts'
import { isReplicable, tablesOf } from '../wire/names.ts'
import { FRAME_LIMITS, type FrameLimits } from './frame-queue.ts'
import { LocalStreams } from './local-streams.ts'
import { HarperTimes, type MessageFormat, SingleMessages, type SingleMessagesOptions } from './message-format.ts'
import { OutboxConfirmation } from './outbox-confirmation.ts'
import { OutboxReader } from './outbox-reader.ts'
import { maxDataBytes, PartEncoder } from './part-encoder.ts'
import { type OutgoingPart, type PartListener, PendingTransaction } from './pending-transaction.ts'
import { PublishCalls } from './publish-calls.ts'
import { PublishedPositions } from './published-positions.ts'
import type { PurgeOptions } from './purge-plan.ts'
import type { Divergence, StreamEnd } from './stream-writer-options.ts'
import { everythingRecorded, type UnrecordedCommits } from './unrecorded-commits.ts'

export type PublisherOptions = {
  mesh: Mesh
  host: Host
  node: string
  logger: Logger
  /** Maximum number of messages in flight for one table. */
  window: number
  /** HarperDB nodes read the streams: each transaction is a message as they write it. */
  singleMessages?: boolean
  /** How transactions are put together to messages; for tests. */
  frames?: Partial<FrameLimits>
  /** Maximum number of transactions, and of their bytes, in memory; the rest stays in the outbox. */
  maxInFlight: number
  maxInFlightBytes: number
  /** ms that `publish` waits for the acknowledgement. */
  timeout: number
  /** ms for each request to the local leaf. */
  requestTimeout: number
  /** Default: everything is recorded. */
  unrecorded?: UnrecordedCommits
  /** A new epoch began because a local stream does not match the database. */
  diverged?(divergence: TableName & Divergence): void
}

/** Of one part of a transaction: in the stream of a table, by its running number in the epoch. */
export type TransactionPosition = TableName & { epoch: string; index: number }

/** ms that `close` waits for acknowledgements. */
const CLOSE_TIMEOUT_MS = 2_000
const CLOSE_POLL_MS = 5
const RETRY_CHECK_MS = 1_000
/** Calls of `publish` that may wait at once, for each transaction that may be in flight. */
const MAX_CALLS_PER_IN_FLIGHT = 10
/** Confirmed transactions whose ids are remembered, for each transaction that may be in flight. */
const REMEMBERED_PER_IN_FLIGHT = 5

export class Publisher implements PartListener {
  readonly node: string
  readonly #options: PublisherOptions
  readonly #outbox: Outbox
  readonly #streams: LocalStreams
  readonly #encoder: PartEncoder
  readonly #calls: PublishCalls
  readonly #reader: OutboxReader
  readonly #confirmation: OutboxConfirmation
  /**
   * Transactions read from the outbox and not yet removed from it, in its order. It remembers those that were confirmed last: `publish` may
   * be called after another call has led to that.
   */
  readonly #pending: IdQueue<PendingTransaction>
  /** Transactions that can never be published, by id: they stay in the outbox. */
  readonly #rejected = new Map<string, ClusterError>()
  readonly #counters = publishCounters()
  readonly #unrecorded: UnrecordedCommits
  /** Without an outbox: transactions were not accepted. */
  #isIncomplete = false
  /** Every stream whose table may have unrecorded transactions is in its new epoch. */
  #hasChecked = false
  #isChecking = false
  #inFlightBytes = 0
  #closed = false

  constructor(options: PublisherOptions) {
    const { mesh, host, node, logger, timeout, maxInFlight } = options
    this.#options = options
    this.node = node
    this.#unrecorded = options.unrecorded ?? everythingRecorded
    const outbox = createOutbox(host)
    this.#outbox = outbox
    const positions = new PublishedPositions(outbox)
    this.#pending = new IdQueue(REMEMBERED_PER_IN_FLIGHT * maxInFlight)
    this.#encoder = new PartEncoder(mesh, this)
    this.#streams = new LocalStreams({
      ...options,
      frames: frameLimits(options),
      formatOf: options.singleMessages ? singleMessageFormats(options, this.#counters) : undefined,
      messageStored: () => {
        this.#counters.messages++
      },
      loadPosition: (table) => positions.load(table),
      unrecordedMark: (table) => this.#unrecorded.markOf(table),
      savePosition: (table, position) => positions.begin(table, position),
      mayShowMore: (queued) => this.#reader.completedPass === 0 && !(queued > 0 && this.#reader.isWaiting),
      interrupted: () => {
        this.#counters.retries++
      },
    })
    this.#calls = new PublishCalls({
      mesh,
      timeout,
      maxWaiting: MAX_CALLS_PER_IN_FLIGHT * maxInFlight,
      holders: () => this.#pending,
      onTimeout: () => {
        this.#counters.timeouts++
      },
    })
    this.#reader = new OutboxReader({
      outbox,
      logger,
      isFull: () => this.#isFull,
      isKnown: (id) => this.#pending.has(id) || this.#rejected.has(id),
      enqueue: (transaction) => this.#enqueue(transaction),
      onPassComplete: (pass) => {
        this.#calls.finishUnread(pass, (id) => this.#outcomeOfUnread(id))
        this.#streams.onOutboxRead()
      },
      onFull: () => this.#streams.onOutboxRead(),
    })
    this.#confirmation = new OutboxConfirmation({
      positions,
      logger,
      pending: this.#pending,
      rejected: this.#rejected,
      onConfirmed: (stored) => this.#onConfirmed(stored),
    })
  }

  /**
   * Resolves when the local leaf has stored every part. Rejects publish_timeout, not_in_outbox, transaction_too_large, closed. Without
   * an outbox the transaction is queued here, and what does not fit is not accepted.
   */
  publish(transaction: Transaction): Promise<void> {
    const { id } = transaction
    if (this.#closed) return Promise.reject(clusterError('closed'))
    const rejected = this.#rejected.size > 0 ? this.#rejected.get(id) : undefined
    if (rejected) return Promise.reject(rejected)
    const pending = this.#pending.get(id)
    if (pending?.unstoredParts === 0) return Promise.resolve()
    const isQueuedHere = !pending && !this.#outbox.isDurable
    // With an outbox, the outbox decides: a host may use an id again, although it must not.
    if (isQueuedHere && this.#pending.remembers(id)) return Promise.resolve()
    const known = pending ? pending.call : this.#calls.findUnread(id)
    if (known) return known.promise
    if (isQueuedHere && this.#isFull) {
      this.#isIncomplete = true
      return Promise.reject(this.#calls.timeoutError(`${this.#pending.length} transactions are in flight`, false))
    }
    const call = this.#calls.create(this.#reader.passNumber + 1)
    if (call instanceof ClusterError) return Promise.reject(call)
    if (pending) pending.call = call
    else if (isQueuedHere) this.#enqueue(transaction, call)
    else {
      this.#calls.addUnread(id, call)
      this.wake()
    }
    return call.promise
  }

  /**
   * As `publish`. Resolves with the position of each part; of a transaction that was confirmed before, and is no longer in memory, with
   * the ends of the streams of its tables. Rejects mesh_unavailable too.
   */
  async locate(transaction: Transaction): Promise<TransactionPosition[]> {
    const { id, writes } = transaction
    const known = this.#pending.get(id)
    const done = this.publish(transaction)
    const call = (known ?? this.#pending.get(id))?.call ?? this.#calls.findUnread(id)
    try {
      await done
    } catch (error) {
      if (!(error instanceof ClusterError && error.code === 'not_in_outbox')) throw error
    }
    const stored = known ?? (call?.holder instanceof PendingTransaction ? call.holder : undefined)
    if (stored) return stored.publishedPositions
    return Promise.all(tablesOf(writes).map((table) => this.#streams.lastPosition(table)))
  }

  /** The first message in the stream of this table that HarperDB reads; undefined if it reads none. Rejects mesh_unavailable. */
  firstSingleMessage(table: TableName): Promise<number | undefined> {
    return this.#streams.firstSingleMessage(table)
  }

  /** The end of the local stream of this table; undefined while it is not known. */
  endOf(table: TableName): StreamEnd | undefined {
    return this.#streams.endOf(table)
  }

  /** What the database knows to be in the local stream of this table. Rejects as the host does. */
  async confirmedPosition(table: TableName): Promise<Pick<StreamEnd, 'epoch' | 'sequence'> | undefined> {
    return this.#outbox.isDurable ? this.#outbox.publishedPosition(table.database, table.table) : this.endOf(table)
  }

  /** Publishes transactions of other nodes. A host with an outbox stored them there when it applied them. */
  relay(transactions: Transaction[]): void {
    if (this.#outbox.isDurable) return this.wake()
    for (const transaction of transactions)
      if (!this.#closed && !this.#pending.has(transaction.id)) this.#enqueue(transaction)
  }

  /** The outbox may have new transactions. */
  wake(): void {
    this.#reader.wake()
  }

  /** The mesh is connected again: checks every stream and reads the outbox. */
  resume(): void {
    this.#streams.resume()
    this.wake()
    void this.#checkUnrecorded()
  }

  /** A stream whose table has unrecorded transactions begins its new epoch now, not with the next transaction. */
  async #checkUnrecorded(): Promise<void> {
    const { host, logger, mesh } = this.#options
    if (this.#hasChecked || this.#isChecking || this.#closed) return
    this.#isChecking = true
    try {
      for (const { database, table } of await host.describe())
        if (isReplicable({ database, table }) && (await this.#unrecorded.isCheckDue({ database, table })))
          await this.#streams.ensure({ database, table })
      this.#hasChecked = true
    } catch (error) {
      // Otherwise `resume` is called when the mesh is connected again.
      if (mesh.state !== 'connected' || this.#closed) return
      logger.warn({ reason: reasonOf(error) }, 'cannot check for transactions that were not recorded, retrying')
      mesh.timers.after(RETRY_CHECK_MS, () => void this.#checkUnrecorded())
    } finally {
      this.#isChecking = false
    }
  }

  /** Resolves when the local stream of this table exists and its writer is in step with it. Rejects mesh_unavailable. */
  ensure(table: TableName): Promise<StreamEnd> {
    return this.#streams.ensure(table)
  }

  /**
   * Returns a function that says whether the streams contain everything that the database had committed before this call: a complete
   * pass over the outbox began after it, and what was in flight then is stored. Call it again until it returns true.
   */
  trackCommitted(): () => boolean {
    const pass = this.#reader.passNumber + 1
    const { isDurable } = this.#outbox
    if (isDurable) this.wake()
    let unstored: PendingTransaction[] | undefined
    return () => {
      if (isDurable && this.#reader.completedPass < pass) return false
      unstored = (unstored ?? [...this.#pending]).filter(({ unstoredParts }) => unstoredParts > 0)
      return unstored.length === 0
    }
  }

  /** Purges between two messages, with none in flight. Rejects mesh_unavailable. */
  purge(table: TableName, options: PurgeOptions): Promise<void> {
    return this.#streams.purge(table, options)
  }

  /** Removes the messages before `before`, if the stream is still in that epoch. Rejects as the mesh does. */
  trim(table: TableName, options: { epoch: string; before: number }): Promise<void> {
    return this.#streams.trim(table, options)
  }

  /** Positions of the streams that grew recently, for the heartbeat. */
  recentPositions(): (TableName & StreamPosition)[] {
    return this.#streams.recentPositions()
  }

  metrics(): Metrics['publish'] {
    const gauges = { inFlight: this.#pending.length, inFlightBytes: this.#inFlightBytes, waiting: this.#calls.waiting }
    return { ...this.#counters, ...gauges }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#calls.stopExpiry()
    this.#streams.close()
    this.#confirmation.stopRetrying()
    await this.#reader.close()
    // What is not acknowledged within the time limit stays in the outbox.
    const end = systemTimers.elapsed() + CLOSE_TIMEOUT_MS
    const isInFlight = () => [...this.#pending].some(({ unstoredParts }) => unstoredParts > 0)
    while (isInFlight() && this.#options.mesh.state === 'connected' && systemTimers.elapsed() < end)
      await delay(CLOSE_POLL_MS)
    await this.#confirmation.idle()
    this.#calls.close()
    await this.#unrecorded.onClosed(this.#hasChecked && !this.#isIncomplete && this.#pending.length === 0)
  }

  partStored({ data }: OutgoingPart): void {
    this.#counters.bytes += data.byteLength
  }

  transactionStored(pending: PendingTransaction): void {
    if (pending.firstPart) this.#counters.transactions++
    this.#inFlightBytes -= pending.bytes
    this.#calls.finish(pending)
    this.#confirmation.schedule()
  }

  #onConfirmed(stored: readonly PendingTransaction[]): void {
    for (const { id } of stored) this.#reader.onConfirmed(id)
    this.#reader.onCapacity()
  }

  get #isFull(): boolean {
    const { maxInFlight, maxInFlightBytes } = this.#options
    return this.#pending.length >= maxInFlight || this.#inFlightBytes >= maxInFlightBytes
  }

  /** Of a transaction that a complete pass over the outbox did not contain; undefined when it is stored. */
  #outcomeOfUnread(id: string): ClusterError | undefined {
    if (this.#pending.remembers(id)) return undefined
    return this.#rejected.get(id) ?? clusterError('not_in_outbox', id)
  }

  /** Queues every part after the parts that its table has queued already. */
  #enqueue(transaction: Transaction, call = this.#calls.takeUnread(transaction.id)): void {
    const pending = new PendingTransaction(transaction, call)
    this.#pending.push(pending)
    const parts = this.#encoder.encode(pending, transaction)
    if (parts instanceof ClusterError) this.#reject(pending, parts)
    else pending.setParts(parts)
    this.#inFlightBytes += pending.bytes
    if (pending.unstoredParts === 0) this.transactionStored(pending)
    else for (let part = pending.firstPart; part; part = part.next) this.#streams.push(part.table, part)
  }

  /** The transaction stays in the outbox, if there is one; later transactions are not held up. */
  #reject(pending: PendingTransaction, error: ClusterError): void {
    const { id } = pending
    pending.isRejected = true
    this.#options.logger.error({ id, reason: error.message }, 'a transaction cannot be replicated')
    if (this.#outbox.isDurable) this.#rejected.set(id, error)
    this.#counters.rejected++
    this.#calls.finish(pending, error)
  }
}

const frameLimits = ({ mesh, window, frames, singleMessages }: PublisherOptions): FrameLimits => ({
  ...FRAME_LIMITS,
  bytes: Math.min(FRAME_LIMITS.bytes, maxDataBytes(mesh)),
  inFlight: window,
  ...(singleMessages && { transactions: 1, partial: 1, inFlight: 1 }),
  ...frames,
})

function singleMessageFormats(
  { mesh, host, logger }: PublisherOptions,
  counters: PublishCounters,
): (table: TableName) => MessageFormat {
  const maxBytes = maxDataBytes(mesh)
  const times = new HarperTimes()
  // After an interruption the writers of all tables ask at once.
  const tables = new SharedCall(() => host.describe(), { timers: mesh.timers, maxAge: 0 })
  return (table) => {
    const withheld: SingleMessagesOptions['withheld'] = (row) => {
      counters.withheld++
      logger.error({ ...table, ...row }, 'HarperDB does not get a row that no message can hold')
    }
    return new SingleMessages({ table, times, maxBytes, describe: () => tables.get(), withheld })
  }
}
