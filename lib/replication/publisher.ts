// From the outbox to the streams of our leaf: in the order of commit, each table in its own stream, all acknowledged.

import { setTimeout as delay } from 'node:timers/promises'
import { decodingFault, MOST_VALUES } from '../decoding-cost.ts'
import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Host, Published, Transaction } from '../host.ts'
import type { Logger } from '../logger.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { Mesh, TableName } from '../mesh/mesh.ts'
import { type Metrics, publishCounters } from './metrics.ts'
import { type Outbox, outboxOf } from './outbox.ts'
import { OwnStreams } from './own-streams.ts'
import type { Position } from './table-log.ts'
import { encode, encodeHeaders, isReplicable, isTransactionId, splitByTable } from './wire.ts'

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

/** A transaction on its way. `open`: parts that are not yet stored. */
type Ticket = { id: string; stamp: string; bytes: number; open: number; positions: Published[] }
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

export class Publisher {
  readonly #options: PublisherOptions
  readonly #outbox: Outbox
  readonly #streams: OwnStreams
  /** What was read from the outbox and not yet removed from it, in its order. */
  readonly #tickets = new Map<string, Ticket>()
  readonly #waiters = new Map<string, Waiter>()
  /** Transactions that cannot be sent, by id: they stay in the outbox. */
  readonly #refused = new Map<string, ClusterError>()
  /** What the host removed while a pass is under way, which may still show it. */
  readonly #removed = new Set<string>()
  readonly #timer: NodeJS.Timeout
  readonly #counters = publishCounters()
  #queuedBytes = 0
  /** The last transaction read from the outbox. */
  #cursor: { id: string; stamp: string } | undefined
  #pass = 0
  #woken = false
  #reading: Promise<void> | undefined
  #confirming: Promise<void> | undefined
  #roomWanted: (() => void) | undefined
  #closed = false

  constructor(options: PublisherOptions) {
    this.#options = options
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
    this.#waiters.set(transaction.id, { ...settle, promise, deadline, pass: this.#pass + 1 })
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
    let read = 0
    try {
      for await (const transaction of this.#outbox.unpublished(this.#cursor)) {
        // A host may ignore the cursor, or start anew when that transaction has left.
        const { id } = transaction
        const known = this.#tickets.has(id) || this.#refused.has(id) || this.#removed.has(id)
        if (!known) await this.#admit(transaction)
        if (this.#closed) return
        this.#cursor = { id, stamp: transaction.stamp }
        // What is known is no part of that: a host that shows it each time would never be read beyond it.
        if (known || ++read < PASS) continue
        this.#woken = true
        return
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
    for (const [id, waiter] of this.#waiters) {
      const refused = this.#refused.get(id)
      if (refused) this.#settle(id, (each) => each.reject(refused))
      else if (waiter.pass <= pass && !this.#tickets.has(id)) this.#settle(id, (each) => each.resolve())
    }
  }

  /** Waits for room, then queues every part behind what its table has queued already. */
  async #admit(transaction: Transaction): Promise<void> {
    const { maxQueued, maxQueuedBytes, node } = this.#options
    while (!this.#closed && (this.#tickets.size >= maxQueued || this.#queuedBytes >= maxQueuedBytes))
      await new Promise<void>((resolve) => {
        this.#roomWanted = resolve
      })
    if (this.#closed) return
    const { id, stamp } = transaction
    const ticket: Ticket = { id, stamp, bytes: 0, open: 0, positions: [] }
    this.#tickets.set(id, ticket)
    const encoded = this.#encode(transaction)
    if (encoded instanceof ClusterError) this.#refuse(id, encoded)
    const parts = encoded instanceof ClusterError ? [] : encoded
    if (parts.length === 0) return this.#finish(ticket)
    ticket.open = parts.length
    for (const { data } of parts) ticket.bytes += data.byteLength
    this.#queuedBytes += ticket.bytes
    for (const { table, data } of parts)
      this.#streams.push(table, {
        id,
        data,
        headers: (epoch) => encodeHeaders(transaction, node, epoch),
        stored: (position) => {
          this.#counters.messages++
          this.#counters.bytes += data.byteLength
          this.#stored(ticket, table, position)
        },
      })
  }

  /** The messages, one a table, or why there can be none. */
  #encode(transaction: Transaction): { table: TableName; data: Uint8Array }[] | ClusterError {
    const { mesh, node } = this.#options
    const growth = transaction.origin ? { bytes: 0, values: 0 } : GROWTH
    const limit = mesh.maxPayload - HEADER_ROOM - growth.bytes
    const values = MOST_VALUES - growth.values
    try {
      if (!isTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      const parts = splitByTable(transaction)
        .filter(({ table }) => isReplicable(table))
        .map(({ table, writes }) => ({ table, data: encode(transaction, writes, node) }))
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

  /** It stays in the outbox, reported, and what follows passes it by. */
  #refuse(id: string, error: ClusterError): void {
    this.#options.logger.error({ id, reason: error.message }, 'a transaction cannot be replicated')
    this.#refused.set(id, error)
    this.#counters.refused++
    this.#settle(id, (waiter) => waiter.reject(error))
  }

  // --- out: stored, told to the host, forgotten -------------------------------------------------------------------------

  #stored(ticket: Ticket, table: TableName, position: Position): void {
    ticket.positions.push({ ...table, ...position, id: ticket.id })
    if (--ticket.open === 0) this.#finish(ticket)
  }

  #finish(ticket: Ticket): void {
    if (ticket.positions.length > 0) this.#counters.transactions++
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
      const progress = new Map<string, Published>()
      for (const ticket of whole) for (const position of ticket.positions) progress.set(tableKey(position), position)
      try {
        const { id, stamp } = through
        await this.#outbox.published([...progress.values()], { id, stamp }, [...this.#refused.keys()])
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
