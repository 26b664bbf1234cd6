// From the outbox to the streams of our leaf: in the order of commit, each table in its own stream, all acknowledged.

import { setTimeout as delay } from 'node:timers/promises'
import { decodingFault, MOST_VALUES } from '../decoding-cost.ts'
import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { Host, Transaction, Write } from '../host.ts'
import type { Logger } from '../logger.ts'
import type { Mesh, TableName } from '../mesh/mesh.ts'
import { TableMap } from '../table-map.ts'
import { type Metrics, publishCounters } from './metrics.ts'
import { type Outbox, outboxOf } from './outbox.ts'
import { OutgoingPart, type Sender, Ticket, Waiter } from './outgoing.ts'
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
  /** Who waits for a transaction that was not read from the outbox yet. */
  readonly #unread = new Map<string, Waiter>()
  /** Transactions that cannot be sent, by id: they stay in the outbox. */
  readonly #refused = new Map<string, ClusterError>()
  /** What the host removed while a pass is under way, which may still show it. */
  readonly #removed = new Set<string>()
  /** Tables that were written, always the same object for each; undefined for those that cannot be replicated. */
  readonly #tables = new TableMap<TableName | undefined>()
  readonly #forget: () => void
  readonly #counters = publishCounters()
  #queuedBytes = 0
  /** Calls of `publish` that wait, and until when none of them is late. */
  #waiting = 0
  #noneLate = Number.POSITIVE_INFINITY
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
    this.#forget = options.mesh.timers.every(100, () => this.#expire())
  }

  /** Resolves when our leaf has every part. Rejects backlog_full, transaction_too_large, closed. */
  publish(transaction: Transaction): Promise<void> {
    if (this.#closed) return Promise.reject(clusterError('closed'))
    const refused = this.#refused.get(transaction.id)
    if (refused) return Promise.reject(refused)
    const ticket = this.#tickets.get(transaction.id)
    if (ticket?.open === 0) return Promise.resolve()
    const known = ticket ? ticket.waiter : this.#unread.get(transaction.id)
    if (known) return known.promise
    if (this.#waiting >= WAITERS_PER_QUEUED * this.#options.maxQueued)
      return Promise.reject(this.#backlogFull(`${this.#waiting} transactions wait already`))
    const waiter = new Waiter(this.#options.mesh.timers.elapsed() + this.#options.timeout, this.#pass + 1)
    this.#waiting++
    if (this.#noneLate > waiter.deadline) this.#noneLate = waiter.deadline
    if (ticket) ticket.waiter = waiter
    else {
      this.#unread.set(transaction.id, waiter)
      this.#outbox.add(transaction)
      this.wake()
    }
    return waiter.promise
  }

  /** What came from other nodes, put into the host's outbox with its apply. */
  handOn(transactions: Transaction[]): void {
    for (const transaction of transactions) this.#outbox.add(transaction)
    this.wake()
  }

  /** There may be something new in the outbox. */
  wake(): void {
    this.#woken = true
    this.#reading ??= this.#readWhileWoken()
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
    const gauges = { queued: this.#tickets.size, queuedBytes: this.#queuedBytes, waiting: this.#waiting }
    return { ...this.#counters, ...gauges }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#forget()
    this.#streams.close()
    this.#roomWanted?.()
    await this.#reading
    // What is in flight has a moment to be acknowledged; the rest stays in the outbox.
    const end = performance.now() + CLOSE_TIMEOUT
    const inFlight = () => [...this.#tickets.values()].some(({ open }) => open > 0)
    while (inFlight() && this.#options.mesh.state === 'connected' && performance.now() < end) await delay(5)
    await this.#confirming
    for (const [id] of this.#unread) this.#settle(this.#takeUnread(id), clusterError('closed'))
    for (const [, ticket] of this.#tickets) this.#settleTicket(ticket, clusterError('closed'))
  }

  // --- in: passes over what lies behind the cursor ----------------------------------------------------------------------

  async #readWhileWoken(): Promise<void> {
    while (this.#woken && !this.#closed) {
      // What is published in the same turn is read in the same pass.
      await Promise.resolve()
      await this.#readOutbox()
    }
    this.#reading = undefined
  }

  async #readOutbox(): Promise<void> {
    this.#woken = false
    const pass = ++this.#pass
    this.#read = 0
    try {
      const found = this.#outbox.unpublished(this.#cursor)
      // What lies in memory is taken without a pause between two, and stays there until there is room: it may be given up meanwhile.
      if (Symbol.iterator in found) {
        if (this.#isFull) await this.#room()
        for (const each of found) {
          if (!this.#take(each)) return
          if (this.#isFull) await this.#room()
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
    for (const [id, waiter] of this.#unread) {
      const refused = this.#refused.get(id)
      if (refused || waiter.pass <= pass) this.#settle(this.#takeUnread(id), refused)
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
    const ticket = new Ticket(transaction, this.#takeUnread(id))
    this.#tickets.set(id, ticket)
    const parts = this.#partsOf(ticket, transaction)
    if (parts instanceof ClusterError) this.#refuse(ticket, parts)
    else ticket.hold(parts)
    this.#queuedBytes += ticket.bytes
    if (ticket.open === 0) this.allStored(ticket)
    else for (const part of ticket.parts) this.#streams.push(part.table, part)
  }

  /** The messages, one a table, or why there can be none. */
  #partsOf(ticket: Ticket, transaction: Transaction): OutgoingPart[] | ClusterError {
    const { mesh, node } = this.#options
    const growth = transaction.origin ? { bytes: 0, values: 0 } : GROWTH
    const limit = mesh.maxPayload - HEADER_ROOM - growth.bytes
    const values = MOST_VALUES - growth.values
    const packed = ({ table, writes }: { table: TableName; writes: readonly Write[] }): OutgoingPart[] => {
      const replicated = this.#tables.get(table, replicable)
      return replicated ? [new OutgoingPart(this, ticket, replicated, encode(transaction, writes, node))] : []
    }
    try {
      if (!isTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      const split = splitByTable(transaction)
      const parts = split.length === 1 ? packed(split[0]!) : split.flatMap(packed)
      const largest = parts.reduce((most, { data }) => Math.max(most, data.byteLength), 0)
      if (largest > limit) return clusterError('transaction_too_large', `${largest} bytes`, limit)
      // Whoever reads it would refuse it.
      if (parts.some(({ data }) => decodingFault(data, values)))
        return clusterError('transaction_too_large', 'more values', values)
      return parts
    } catch (error) {
      const message = `a transaction cannot be encoded: ${reasonOf(error)}`
      return new ClusterError('invalid_request', message, { cause: error, issues: [{ path: 'writes', message }] })
    }
  }

  /** It stays in the outbox, reported, and what follows passes it by. */
  #refuse(ticket: Ticket, error: ClusterError): void {
    const { id } = ticket
    this.#options.logger.error({ id, reason: error.message }, 'a transaction cannot be replicated')
    this.#refused.set(id, error)
    this.#counters.refused++
    this.#settleTicket(ticket, error)
  }

  // --- out: stored, told to the host, forgotten -------------------------------------------------------------------------

  partStored({ data }: OutgoingPart): void {
    this.#counters.messages++
    this.#counters.bytes += data.byteLength
  }

  allStored(ticket: Ticket): void {
    if (ticket.parts.length > 0) this.#counters.transactions++
    this.#queuedBytes -= ticket.bytes
    this.#settleTicket(ticket)
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

  // --- those who wait ---------------------------------------------------------------------------------------------------

  #takeUnread(id: string): Waiter | undefined {
    const waiter = this.#unread.get(id)
    if (waiter) this.#unread.delete(id)
    return waiter
  }

  #settleTicket(ticket: Ticket, error?: ClusterError): void {
    const { waiter } = ticket
    ticket.waiter = undefined
    this.#settle(waiter, error)
  }

  #settle(waiter: Waiter | undefined, error?: ClusterError): void {
    if (!waiter) return
    this.#waiting--
    if (error) waiter.reject(error)
    else waiter.resolve()
  }

  #expire(): void {
    const now = this.#options.mesh.timers.elapsed()
    if (now < this.#noneLate) return
    const { timeout, mesh } = this.#options
    this.#noneLate = Number.POSITIVE_INFINITY
    const isLate = ({ deadline }: Waiter) => {
      if (deadline > now) this.#noneLate = Math.min(this.#noneLate, deadline)
      return deadline <= now
    }
    const late = () => this.#backlogFull(`${timeout} ms have passed, the mesh is ${mesh.state}`)
    for (const [id, waiter] of this.#unread) {
      if (!isLate(waiter)) continue
      this.#outbox.drop(id)
      this.#settle(this.#takeUnread(id), late())
    }
    for (const ticket of this.#tickets.values())
      if (ticket.waiter && isLate(ticket.waiter)) this.#settleTicket(ticket, late())
  }

  #backlogFull(reason: string): ClusterError {
    this.#counters.backlogFull++
    return clusterError('backlog_full', reason)
  }
}

const replicable = (table: TableName): TableName | undefined => (isReplicable(table) ? table : undefined)
