// From the outbox to the streams of our leaf: in the order of commit, each table in its own stream, all acknowledged.

import { setTimeout as delay } from 'node:timers/promises'
import { decodingFault, MOST_VALUES } from '../decoding-cost.ts'
import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host, Transaction } from '../host.ts'
import type { Logger } from '../logger.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { Mesh, TableName } from '../mesh/mesh.ts'
import { type Metrics, publishCounters } from './metrics.ts'
import { type Outbox, outboxOf } from './outbox.ts'
import { type OutgoingPart, type Sender, Ticket } from './outgoing.ts'
import { OwnStreams } from './own-streams.ts'
import type { Position } from './table-log.ts'
import { encode, isReplicable, isTransactionId, splitByTable } from './wire.ts'

export type PublisherOptions = {
  mesh: Mesh
  host: Host
  node: string
  logger: Logger
  /** Most messages in flight for one table. */
  window: number
  /** Most transactions, and most bytes of them, held in memory; the rest waits in the outbox. */
  maxQueued: number
  maxQueuedBytes: number
  /** ms that `publish` waits for the acknowledgement. */
  timeout: number
  /** ms for each request to our leaf. */
  requestTimeout: number
}

type Waiter = {
  promise: Promise<void>
  resolve(): void
  reject(error: ClusterError): void
  deadline: number
  /** A pass over the outbox that began after this one was asked for. */
  pass: number
}

/** ms that `close` waits for acknowledgements. */
const CLOSE_TIMEOUT = 2_000
const RETRY = { first: 50, most: 1_000 }
/** Calls of `publish` that may wait at once, for each transaction that may be queued. */
const WAITERS_PER_QUEUED = 10
/** New transactions after which a pass over the outbox ends and the next begins behind it: what it removed need not be remembered longer. */
const PASS = 10_000
/** Room that headers and the server's own framing take of the largest message. */
const HEADER_ROOM = 64 * 1024
/** What a transaction may grow by on its way, where it is handed on: in bytes, and in values. */
const GROWTH = { bytes: 64 * 1024, values: 1_024 }

export class Publisher implements Sender {
  readonly node: string
  readonly #options: PublisherOptions
  readonly #outbox: Outbox
  readonly #streams: OwnStreams
  /** What was read from the outbox and not yet removed from it, in its order. */
  readonly #tickets = new Map<string, Ticket>()
  readonly #waiters = new Map<string, Waiter>()
  /** Of those who wait, the transactions that were not read from the outbox yet. */
  readonly #unread = new Set<string>()
  /** Transactions that cannot be sent, by id: they stay in the outbox. */
  readonly #refused = new Map<string, ClusterError>()
  /** What the host removed while a pass is under way, which may still show it. */
  readonly #removed = new Set<string>()
  /** Tables that were written, by key; undefined for those that cannot be replicated. */
  readonly #tables = new Map<string, TableName | undefined>()
  readonly #timer: NodeJS.Timeout
  readonly #counters = publishCounters()
  #queuedBytes = 0
  /** The last transaction read from the outbox. */
  #cursor: { id: string; stamp: string } | undefined
  #pass = 0
  /** New transactions of this pass so far. */
  #read = 0
  #woken = false
  #reading: Promise<void> | undefined
  #confirming: Promise<void> | undefined
  #roomWanted: (() => void) | undefined
  #closed = false

  constructor(options: PublisherOptions) {
    this.#options = options
    this.node = options.node
    this.#outbox = outboxOf(options.host)
    this.#streams = new OwnStreams({
      ...options,
      recall: (table) => this.#outbox.publishedUpTo(table.database, table.table),
      remember: (table, position) => this.#outbox.published([{ ...table, ...position, id: '' }]),
      interrupted: () => {
        this.#counters.retries++
      },
    })
    this.#timer = setInterval(() => this.#expire(), 100)
    this.#timer.unref()
  }

  /** Resolves when our leaf has every part. Rejects backlog_full, transaction_too_large, closed. */
  publish(transaction: Transaction): Promise<void> {
    if (this.#closed) return Promise.reject(clusterError('closed'))
    const refused = this.#refused.get(transaction.id)
    if (refused) return Promise.reject(refused)
    const known = this.#waiters.get(transaction.id)
    if (known) return known.promise
    if (this.#tickets.get(transaction.id)?.open === 0) return Promise.resolve()
    if (this.#waiters.size >= WAITERS_PER_QUEUED * this.#options.maxQueued)
      return Promise.reject(this.#backlogFull(`${this.#waiters.size} transactions wait already`))
    let settle!: Pick<Waiter, 'resolve' | 'reject'>
    const promise = new Promise<void>((resolve, reject) => {
      settle = { resolve, reject }
    })
    const deadline = performance.now() + this.#options.timeout
    const { resolve, reject } = settle
    this.#waiters.set(transaction.id, { promise, resolve, reject, deadline, pass: this.#pass + 1 })
    this.#unread.add(transaction.id)
    this.#outbox.add(transaction)
    this.wake()
    return promise
  }

  /** What came from other nodes, put into the host's outbox with its apply. */
  handOn(transactions: Transaction[]): void {
    for (const transaction of transactions) this.#outbox.add(transaction)
    this.wake()
  }

  /** There may be something new in the outbox. */
  wake(): void {
    this.#woken = true
    if (this.#closed) return
    this.#reading ??= this.#readOutbox().finally(() => {
      this.#reading = undefined
      if (this.#woken) this.wake()
    })
  }

  /** The mesh is back: every stream is looked at again, and the outbox. */
  resume(): void {
    this.#streams.resume()
    this.wake()
  }

  /** Our own stream of this table exists and its writer is in step with it. Rejects mesh_unavailable. */
  ensure(table: TableName): Promise<Position> {
    return this.#streams.ensure(table)
  }

  /** Between two messages, with none in flight. Rejects mesh_unavailable. */
  purge(table: TableName, options: { keep?: number; before?: number }): Promise<void> {
    return this.#streams.purge(table, options)
  }

  /** Where the streams are that grew lately, for the heartbeat. */
  recent(): (TableName & Position)[] {
    return this.#streams.recent()
  }

  metrics(): Metrics['publish'] {
    const gauges = { queued: this.#tickets.size, queuedBytes: this.#queuedBytes, waiting: this.#waiters.size }
    return { ...this.#counters, ...gauges }
  }

  async close(): Promise<void> {
    this.#closed = true
    clearInterval(this.#timer)
    this.#streams.close()
    this.#roomWanted?.()
    await this.#reading
    // What is in flight has a moment to be acknowledged; the rest stays in the outbox.
    const end = performance.now() + CLOSE_TIMEOUT
    const inFlight = () => [...this.#tickets.values()].some(({ open }) => open > 0)
    while (inFlight() && this.#options.mesh.state === 'connected' && performance.now() < end) await delay(5)
    await this.#confirming
    for (const id of [...this.#waiters.keys()]) this.#settle(id, (waiter) => waiter.reject(clusterError('closed')))
  }

  // --- in: passes over what lies behind the cursor ----------------------------------------------------------------------

  async #readOutbox(): Promise<void> {
    this.#woken = false
    const pass = ++this.#pass
    this.#read = 0
    try {
      const found = this.#outbox.unpublished(this.#cursor)
      // What lies in memory is taken without a pause between two.
      if (Symbol.iterator in found) {
        for (const each of found) {
          if (this.#isFull && !this.#isKnown(each)) await this.#room()
          if (!this.#take(each)) return
        }
      } else
        for await (const each of found) {
          if (this.#isFull && !this.#isKnown(each)) await this.#room()
          if (!this.#take(each)) return
        }
    } catch (error) {
      this.#options.logger.error({ reason: reasonOf(error) }, 'the outbox could not be read, trying again')
      this.#woken = true
      await delay(RETRY.most)
      return
    } finally {
      this.#removed.clear()
    }
    // What a whole pass has not met was sent and removed before it was asked for.
    for (const id of this.#unread) {
      const refused = this.#refused.get(id)
      if (refused) this.#settle(id, (waiter) => waiter.reject(refused))
      else if (this.#waiters.get(id)!.pass <= pass && !this.#tickets.has(id))
        this.#settle(id, (waiter) => waiter.resolve())
    }
  }

  #isKnown({ id }: Transaction): boolean {
    return this.#tickets.has(id) || this.#refused.has(id) || this.#removed.has(id)
  }

  get #isFull(): boolean {
    const { maxQueued, maxQueuedBytes } = this.#options
    return !this.#closed && (this.#tickets.size >= maxQueued || this.#queuedBytes >= maxQueuedBytes)
  }

  async #room(): Promise<void> {
    while (this.#isFull)
      await new Promise<void>((resolve) => {
        this.#roomWanted = resolve
      })
  }

  /** What was read, if it is new; false when this pass is to end with it. */
  #take(transaction: Transaction): boolean {
    // A host may ignore the cursor, or start anew when that transaction has left.
    const known = this.#isKnown(transaction)
    if (this.#closed) return false
    if (!known) this.#admit(transaction)
    this.#cursor = { id: transaction.id, stamp: transaction.stamp }
    // What is known is no part of that: a host that shows it each time would never be read beyond it.
    if (known || ++this.#read < PASS) return true
    this.#woken = true
    return false
  }

  /** Queues every part behind what its table has queued already. */
  #admit(transaction: Transaction): void {
    const { id } = transaction
    const ticket = new Ticket(transaction)
    this.#tickets.set(id, ticket)
    this.#unread.delete(id)
    const encoded = this.#encode(transaction)
    if (encoded instanceof ClusterError) this.#refuse(id, encoded)
    else for (const { table, data } of encoded) ticket.add(this, transaction, table, data)
    this.#queuedBytes += ticket.bytes
    if (ticket.open === 0) this.allStored(ticket)
    else for (const part of ticket.parts) this.#streams.push(part.table, part)
  }

  /** The messages, one a table, or why there can be none. */
  #encode(transaction: Transaction): { table: TableName; data: Uint8Array }[] | ClusterError {
    const { mesh, node } = this.#options
    const growth = transaction.origin ? { bytes: 0, values: 0 } : GROWTH
    const limit = mesh.maxPayload - HEADER_ROOM - growth.bytes
    const values = MOST_VALUES - growth.values
    try {
      if (!isTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      const parts: { table: TableName; data: Uint8Array }[] = []
      for (const { table, writes } of splitByTable(transaction)) {
        const replicated = this.#tableOf(table)
        if (replicated) parts.push({ table: replicated, data: encode(transaction, writes, node) })
      }
      const largest = Math.max(0, ...parts.map(({ data }) => data.byteLength))
      if (largest > limit) return clusterError('transaction_too_large', `${largest} bytes`, limit)
      // Whoever reads it would refuse it.
      if (parts.some(({ data }) => decodingFault(data, values)))
        return clusterError('transaction_too_large', 'more values', values)
      return parts
    } catch (error) {
      return clusterErrorFrom(error, 'invalid_request', `a transaction cannot be encoded: ${reasonOf(error)}`)
    }
  }

  /** Always the same object for a table; undefined when it cannot be replicated. */
  #tableOf(table: TableName): TableName | undefined {
    const key = tableKey(table)
    const known = this.#tables.get(key)
    if (known || this.#tables.has(key)) return known
    const found = isReplicable(table) ? table : undefined
    this.#tables.set(key, found)
    return found
  }

  /** It stays in the outbox, reported, and what follows passes it by. */
  #refuse(id: string, error: ClusterError): void {
    this.#options.logger.error({ id, reason: error.message }, 'a transaction cannot be replicated')
    this.#refused.set(id, error)
    this.#counters.refused++
    this.#settle(id, (waiter) => waiter.reject(error))
  }

  // --- out: stored, told to the host, forgotten -------------------------------------------------------------------------

  partStored({ data }: OutgoingPart): void {
    this.#counters.messages++
    this.#counters.bytes += data.byteLength
  }

  allStored(ticket: Ticket): void {
    if (ticket.parts.length > 0) this.#counters.transactions++
    this.#queuedBytes -= ticket.bytes
    this.#settle(ticket.id, (waiter) => waiter.resolve())
    this.#confirmSoon()
  }

  #confirmSoon(): void {
    this.#confirming ??= this.#confirm().finally(() => {
      this.#confirming = undefined
      // What was finished while the last round was ending.
      const [oldest] = this.#tickets.values()
      if (oldest?.open === 0 && !this.#closed) this.#confirmSoon()
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
      const whole: Ticket[] = []
      for (const ticket of this.#tickets.values()) {
        if (ticket.open > 0) break
        whole.push(ticket)
      }
      const through = whole.at(-1)
      if (!through) return
      const last = new Map<TableName, OutgoingPart>()
      for (const { parts } of whole) for (const part of parts) last.set(part.table, part)
      try {
        const { id, stamp } = through
        const progress = [...last.values()].map(({ published }) => published)
        await this.#outbox.published(progress, { id, stamp }, [...this.#refused.keys()])
        for (const { id } of whole) {
          this.#tickets.delete(id)
          if (this.#reading) this.#removed.add(id)
        }
        this.#roomWanted?.()
      } catch (error) {
        this.#options.logger.error({ reason: reasonOf(error) }, 'the host could not store how far was published')
        if (this.#closed) return
        await delay(RETRY.most)
      }
    }
  }

  #settle(id: string, how: (waiter: Waiter) => void): void {
    const waiter = this.#waiters.get(id)
    if (!waiter) return
    this.#waiters.delete(id)
    this.#unread.delete(id)
    how(waiter)
  }

  /** All wait equally long: the oldest are at the front. */
  #expire(): void {
    const now = performance.now()
    const { timeout, mesh } = this.#options
    for (const [id, waiter] of this.#waiters) {
      if (waiter.deadline > now) return
      this.#outbox.drop(id)
      this.#settle(id, () => waiter.reject(this.#backlogFull(`${timeout} ms have passed, the mesh is ${mesh.state}`)))
    }
  }

  #backlogFull(reason: string): ClusterError {
    this.#counters.backlogFull++
    return clusterError('backlog_full', reason)
  }
}
