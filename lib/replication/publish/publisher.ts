// From the outbox to the streams of our leaf: in the order of commit, each table in its own stream, all acknowledged.

import { setTimeout as delay } from 'node:timers/promises'
import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Host, Transaction, Write } from '../../host/host.ts'
import { createOutbox, type Outbox } from '../../host/outbox.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import type { Logger } from '../../observe/logger.ts'
import { type Metrics, publishCounters } from '../../observe/metrics.ts'
import { checkDecodeLimits, MAX_DECODED_VALUES } from '../../util/decode-limits.ts'
import { encode, isReplicable, isValidTransactionId, splitByTable } from '../wire.ts'
import { LocalStreams } from './local-streams.ts'
import { OutgoingPart, type PartListener, PendingTransaction, PublishCall } from './pending-transaction.ts'
import type { StreamPosition } from './stream-writer.ts'

export type PublisherOptions = {
  mesh: Mesh
  host: Host
  node: string
  logger: Logger
  /** Most messages in flight for one table. */
  window: number
  /** Most transactions, and most bytes of them, held in memory; the rest waits in the outbox. */
  maxInFlight: number
  maxInFlightBytes: number
  /** ms that `publish` waits for the acknowledgement. */
  timeout: number
  /** ms for each request to our leaf. */
  requestTimeout: number
}

/** ms that `close` waits for acknowledgements. */
const CLOSE_TIMEOUT_MS = 2_000
const RETRY_DELAY_MS = { min: 50, max: 1_000 }
/** Calls of `publish` that may wait at once, for each transaction that may be queued. */
const CALLS_PER_IN_FLIGHT = 10
/** New transactions after which a pass over the outbox ends and the next begins behind it: what it removed need not be remembered longer. */
const MAX_PASS_TRANSACTIONS = 10_000
/** Room that headers and the server's own framing take of the largest message. */
const HEADER_RESERVE_BYTES = 64 * 1024
/** What a transaction may grow by on its way, where it is handed on: in bytes, and in values. */
const RELAY_GROWTH = { bytes: 64 * 1024, values: 1_024 }

export class Publisher implements PartListener {
  readonly node: string
  readonly #options: PublisherOptions
  readonly #outbox: Outbox
  readonly #streams: LocalStreams
  /** What was read from the outbox and not yet removed from it, in its order. */
  readonly #pending = new Map<string, PendingTransaction>()
  /** Who waits for a transaction that was not read from the outbox yet. */
  readonly #unreadCalls = new Map<string, PublishCall>()
  /** Transactions that cannot be sent, by id: they stay in the outbox. */
  readonly #rejected = new Map<string, ClusterError>()
  /** What the host removed while a pass is under way, which may still show it. */
  readonly #confirmedInPass = new Set<string>()
  /** Tables that were written, always the same object for each; undefined for those that cannot be replicated. */
  readonly #tables = new TableMap<TableName | undefined>()
  readonly #stopExpiry: () => void
  readonly #counters = publishCounters()
  #inFlightBytes = 0
  /** Calls of `publish` that wait, and until when none of them is late. */
  #waitingCalls = 0
  #nextDeadline = Number.POSITIVE_INFINITY
  /** The last transaction read from the outbox. */
  #outboxCursor: { id: string; timestamp: string } | undefined
  #passNumber = 0
  /** New transactions of this pass so far. */
  #readInPass = 0
  #wakeRequested = false
  #reading: Promise<void> | undefined
  #confirming: Promise<void> | undefined
  #onCapacity: (() => void) | undefined
  #closed = false

  constructor(options: PublisherOptions) {
    this.#options = options
    this.node = options.node
    this.#outbox = createOutbox(options.host)
    this.#streams = new LocalStreams({
      ...options,
      loadPosition: (table) => this.#outbox.publishedPosition(table.database, table.table),
      savePosition: (table, position) =>
        this.#outbox.confirmPublished({ positions: [{ ...table, ...position, id: '' }] }),
      interrupted: () => {
        this.#counters.retries++
      },
    })
    this.#stopExpiry = options.mesh.timers.every(100, () => this.#expireCalls())
  }

  /** Resolves when our leaf has every part. Rejects publish_timeout, transaction_too_large, closed. */
  publish(transaction: Transaction): Promise<void> {
    if (this.#closed) return Promise.reject(clusterError('closed'))
    const rejected = this.#rejected.get(transaction.id)
    if (rejected) return Promise.reject(rejected)
    const pending = this.#pending.get(transaction.id)
    if (pending?.unstoredParts === 0) return Promise.resolve()
    const known = pending ? pending.call : this.#unreadCalls.get(transaction.id)
    if (known) return known.promise
    if (this.#waitingCalls >= CALLS_PER_IN_FLIGHT * this.#options.maxInFlight)
      return Promise.reject(this.#timeoutError(`${this.#waitingCalls} transactions wait already`))
    const call = new PublishCall(this.#options.mesh.timers.elapsed() + this.#options.timeout, this.#passNumber + 1)
    this.#waitingCalls++
    if (this.#nextDeadline > call.deadline) this.#nextDeadline = call.deadline
    if (pending) pending.call = call
    else {
      this.#unreadCalls.set(transaction.id, call)
      this.#outbox.add(transaction)
      this.wake()
    }
    return call.promise
  }

  /** What came from other nodes, put into the host's outbox with its apply. */
  relay(transactions: Transaction[]): void {
    for (const transaction of transactions) this.#outbox.add(transaction)
    this.wake()
  }

  /** There may be something new in the outbox. */
  wake(): void {
    this.#wakeRequested = true
    this.#reading ??= this.#readPasses()
  }

  /** The mesh is back: every stream is looked at again, and the outbox. */
  resume(): void {
    this.#streams.resume()
    this.wake()
  }

  /** Our own stream of this table exists and its writer is in step with it. Rejects mesh_unavailable. */
  ensure(table: TableName): Promise<StreamPosition> {
    return this.#streams.ensure(table)
  }

  /** Between two messages, with none in flight. Rejects mesh_unavailable. */
  purge(table: TableName, options: { keep?: number; before?: number }): Promise<void> {
    return this.#streams.purge(table, options)
  }

  /** Where the streams are that grew lately, for the heartbeat. */
  recentPositions(): (TableName & StreamPosition)[] {
    return this.#streams.recentPositions()
  }

  metrics(): Metrics['publish'] {
    const gauges = { inFlight: this.#pending.size, inFlightBytes: this.#inFlightBytes, waiting: this.#waitingCalls }
    return { ...this.#counters, ...gauges }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#stopExpiry()
    this.#streams.close()
    this.#onCapacity?.()
    await this.#reading
    // What is in flight has a moment to be acknowledged; the rest stays in the outbox.
    const end = performance.now() + CLOSE_TIMEOUT_MS
    const inFlight = () => [...this.#pending.values()].some(({ unstoredParts }) => unstoredParts > 0)
    while (inFlight() && this.#options.mesh.state === 'connected' && performance.now() < end) await delay(5)
    await this.#confirming
    for (const [id] of this.#unreadCalls) this.#finishCall(this.#removeUnreadCall(id), clusterError('closed'))
    for (const [, pending] of this.#pending) this.#finishTransaction(pending, clusterError('closed'))
  }

  // --- in: passes over what lies behind the cursor ----------------------------------------------------------------------

  async #readPasses(): Promise<void> {
    while (this.#wakeRequested && !this.#closed) {
      // What is published in the same turn is read in the same pass.
      await Promise.resolve()
      await this.#readOutbox()
    }
    this.#reading = undefined
  }

  async #readOutbox(): Promise<void> {
    this.#wakeRequested = false
    const pass = ++this.#passNumber
    this.#readInPass = 0
    try {
      const found = this.#outbox.readOutbox(this.#outboxCursor)
      // What lies in memory is taken without a pause between two, and stays there until there is room: it may be given up meanwhile.
      if (Symbol.iterator in found) {
        if (this.#isFull) await this.#waitForCapacity()
        for (const each of found) {
          if (!this.#accept(each)) return
          if (this.#isFull) await this.#waitForCapacity()
        }
      } else
        for await (const each of found) {
          if (this.#isFull && !this.#isKnown(each)) await this.#waitForCapacity()
          if (!this.#accept(each)) return
        }
    } catch (error) {
      this.#options.logger.error({ reason: reasonOf(error) }, 'the outbox could not be read, trying again')
      this.#wakeRequested = true
      await delay(RETRY_DELAY_MS.max)
      return
    } finally {
      this.#confirmedInPass.clear()
    }
    // What a whole pass has not met was sent and removed before it was asked for.
    for (const [id, call] of this.#unreadCalls) {
      const rejected = this.#rejected.get(id)
      if (rejected || call.readInPass <= pass) this.#finishCall(this.#removeUnreadCall(id), rejected)
    }
  }

  #isKnown({ id }: Transaction): boolean {
    return this.#pending.has(id) || this.#rejected.has(id) || this.#confirmedInPass.has(id)
  }

  get #isFull(): boolean {
    const { maxInFlight, maxInFlightBytes } = this.#options
    return !this.#closed && (this.#pending.size >= maxInFlight || this.#inFlightBytes >= maxInFlightBytes)
  }

  async #waitForCapacity(): Promise<void> {
    while (this.#isFull)
      await new Promise<void>((resolve) => {
        this.#onCapacity = resolve
      })
  }

  /** What was read, if it is new; false when this pass is to end with it. */
  #accept(transaction: Transaction): boolean {
    // A host may ignore the cursor, or start anew when that transaction has left.
    const known = this.#isKnown(transaction)
    if (this.#closed) return false
    if (!known) this.#enqueue(transaction)
    this.#outboxCursor = { id: transaction.id, timestamp: transaction.timestamp }
    // What is known is no part of that: a host that shows it each time would never be read beyond it.
    if (known || ++this.#readInPass < MAX_PASS_TRANSACTIONS) return true
    this.#wakeRequested = true
    return false
  }

  /** Queues every part behind what its table has queued already. */
  #enqueue(transaction: Transaction): void {
    const { id } = transaction
    const pending = new PendingTransaction(transaction, this.#removeUnreadCall(id))
    this.#pending.set(id, pending)
    const parts = this.#createParts(pending, transaction)
    if (parts instanceof ClusterError) this.#reject(pending, parts)
    else pending.setParts(parts)
    this.#inFlightBytes += pending.bytes
    if (pending.unstoredParts === 0) this.transactionStored(pending)
    else for (const part of pending.parts) this.#streams.push(part.table, part)
  }

  /** The messages, one a table, or why there can be none. */
  #createParts(pending: PendingTransaction, transaction: Transaction): OutgoingPart[] | ClusterError {
    const { mesh, node } = this.#options
    const growth = transaction.origin ? { bytes: 0, values: 0 } : RELAY_GROWTH
    const limit = mesh.maxPayload - HEADER_RESERVE_BYTES - growth.bytes
    const values = MAX_DECODED_VALUES - growth.values
    const toPart = ({ table, writes }: { table: TableName; writes: readonly Write[] }): OutgoingPart[] => {
      const replicated = this.#tables.get(table, toReplicable)
      return replicated ? [new OutgoingPart(this, pending, replicated, encode(transaction, writes, node))] : []
    }
    try {
      if (!isValidTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      const split = splitByTable(transaction)
      const parts = split.length === 1 ? toPart(split[0]!) : split.flatMap(toPart)
      const largest = parts.reduce((size, { data }) => Math.max(size, data.byteLength), 0)
      if (largest > limit) return clusterError('transaction_too_large', `${largest} bytes`, limit)
      // Whoever reads it would refuse it.
      if (parts.some(({ data }) => checkDecodeLimits(data, values)))
        return clusterError('transaction_too_large', 'more values', values)
      return parts
    } catch (error) {
      const message = `a transaction cannot be encoded: ${reasonOf(error)}`
      return new ClusterError('invalid_request', message, { cause: error, issues: [{ path: 'writes', message }] })
    }
  }

  /** It stays in the outbox, reported, and what follows passes it by. */
  #reject(pending: PendingTransaction, error: ClusterError): void {
    const { id } = pending
    this.#options.logger.error({ id, reason: error.message }, 'a transaction cannot be replicated')
    this.#rejected.set(id, error)
    this.#counters.rejected++
    this.#finishTransaction(pending, error)
  }

  // --- out: stored, told to the host, forgotten -------------------------------------------------------------------------

  partStored({ data }: OutgoingPart): void {
    this.#counters.messages++
    this.#counters.bytes += data.byteLength
  }

  transactionStored(pending: PendingTransaction): void {
    if (pending.parts.length > 0) this.#counters.transactions++
    this.#inFlightBytes -= pending.bytes
    this.#finishTransaction(pending)
    this.#scheduleConfirm()
  }

  #scheduleConfirm(): void {
    this.#confirming ??= this.#confirm().finally(() => {
      this.#confirming = undefined
      // What was finished while the last round was ending.
      const [oldest] = this.#pending.values()
      if (oldest?.unstoredParts === 0 && !this.#closed) this.#scheduleConfirm()
    })
  }

  /**
   * Tells the host how far the streams are, for the oldest transactions that are wholly stored: so its outbox holds of each
   * table exactly what lies behind the table's confirmed position, and a count says what a stream has already.
   */
  async #confirm(): Promise<void> {
    // What is acknowledged in the same turn is told at once.
    await Promise.resolve()
    for (;;) {
      const stored: PendingTransaction[] = []
      for (const pending of this.#pending.values()) {
        if (pending.unstoredParts > 0) break
        stored.push(pending)
      }
      const newest = stored.at(-1)
      if (!newest) return
      const last = new Map<TableName, OutgoingPart>()
      for (const { parts } of stored) for (const part of parts) last.set(part.table, part)
      try {
        const { id, timestamp } = newest
        const positions = [...last.values()].map(({ publishedPosition }) => publishedPosition)
        await this.#outbox.confirmPublished({ positions, upTo: { id, timestamp }, keep: [...this.#rejected.keys()] })
        for (const { id } of stored) {
          this.#pending.delete(id)
          if (this.#reading) this.#confirmedInPass.add(id)
        }
        this.#onCapacity?.()
      } catch (error) {
        this.#options.logger.error({ reason: reasonOf(error) }, 'the host could not store how far was published')
        if (this.#closed) return
        await delay(RETRY_DELAY_MS.max)
      }
    }
  }

  // --- those who wait ---------------------------------------------------------------------------------------------------

  #removeUnreadCall(id: string): PublishCall | undefined {
    const call = this.#unreadCalls.get(id)
    if (call) this.#unreadCalls.delete(id)
    return call
  }

  #finishTransaction(pending: PendingTransaction, error?: ClusterError): void {
    const { call } = pending
    pending.call = undefined
    this.#finishCall(call, error)
  }

  #finishCall(call: PublishCall | undefined, error?: ClusterError): void {
    if (!call) return
    this.#waitingCalls--
    if (error) call.reject(error)
    else call.resolve()
  }

  #expireCalls(): void {
    const now = this.#options.mesh.timers.elapsed()
    if (now < this.#nextDeadline) return
    const { timeout, mesh } = this.#options
    this.#nextDeadline = Number.POSITIVE_INFINITY
    const isLate = ({ deadline }: PublishCall) => {
      if (deadline > now) this.#nextDeadline = Math.min(this.#nextDeadline, deadline)
      return deadline <= now
    }
    const timeoutError = () => this.#timeoutError(`${timeout} ms have passed, the mesh is ${mesh.state}`)
    for (const [id, call] of this.#unreadCalls) {
      if (!isLate(call)) continue
      this.#outbox.discard(id)
      this.#finishCall(this.#removeUnreadCall(id), timeoutError())
    }
    for (const pending of this.#pending.values())
      if (pending.call && isLate(pending.call)) this.#finishTransaction(pending, timeoutError())
  }

  #timeoutError(reason: string): ClusterError {
    this.#counters.timeouts++
    return clusterError('publish_timeout', reason)
  }
}

const toReplicable = (table: TableName): TableName | undefined => (isReplicable(table) ? table : undefined)
