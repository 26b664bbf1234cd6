// Calls of `publish` that wait for the acknowledgement of their transaction, and their deadlines.

import { type ClusterError, clusterError, publishTimeout } from '../../errors.ts'
import type { Mesh } from '../../mesh/mesh.ts'

type Settlers = { resolve: () => void; reject: (error: ClusterError) => void }
const none = () => {}
/** Of the promise that was created last: a function for each promise would be garbage. */
const created: Settlers = { resolve: none, reject: none }
const keepSettlers = (resolve: () => void, reject: (error: ClusterError) => void): void => {
  created.resolve = resolve
  created.reject = reject
}

/** A call of `publish` that waits. */
export class PublishCall {
  readonly promise: Promise<void>
  /** ms, by `Timers.elapsed`. */
  readonly deadline: number
  /** The first pass over the outbox that starts after the call. */
  readonly readInPass: number
  readonly resolve: () => void
  readonly reject: (error: ClusterError) => void
  /** The transaction that it waited for, once it is stored. */
  holder: CallHolder | undefined

  constructor(deadline: number, pass: number) {
    this.deadline = deadline
    this.readInPass = pass
    this.promise = new Promise(keepSettlers)
    this.resolve = created.resolve
    this.reject = created.reject
  }
}

/** A transaction that was read from the outbox, with the call that waits for it. */
export type CallHolder = { call: PublishCall | undefined }

export type PublishCallsOptions = {
  mesh: Mesh
  /** ms that a call waits. */
  timeout: number
  maxWaiting: number
  /** The transactions that were read from the outbox. */
  holders(): Iterable<CallHolder>
  onTimeout(): void
}

const EXPIRY_INTERVAL_MS = 100

export class PublishCalls {
  readonly #options: PublishCallsOptions
  /** Calls whose transaction was not read from the outbox yet, by its id. */
  readonly #unread = new Map<string, PublishCall>()
  readonly #stopExpiry: () => void
  #waiting = 0
  /** No call expires before this time. */
  #nextDeadline = Number.POSITIVE_INFINITY

  constructor(options: PublishCallsOptions) {
    this.#options = options
    this.#stopExpiry = options.mesh.timers.every(EXPIRY_INTERVAL_MS, () => this.#expire())
  }

  get waiting(): number {
    return this.#waiting
  }

  /** The caller adds it to the unread calls, or to the transaction. Returns publish_timeout when too many calls wait. */
  create(pass: number): PublishCall | ClusterError {
    const { mesh, timeout, maxWaiting } = this.#options
    if (this.#waiting >= maxWaiting) return this.timeoutError(`${this.#waiting} transactions wait already`, true)
    const call = new PublishCall(mesh.timers.elapsed() + timeout, pass)
    this.#waiting++
    if (this.#nextDeadline > call.deadline) this.#nextDeadline = call.deadline
    return call
  }

  addUnread(id: string, call: PublishCall): void {
    this.#unread.set(id, call)
  }

  findUnread(id: string): PublishCall | undefined {
    return this.#unread.size > 0 ? this.#unread.get(id) : undefined
  }

  takeUnread(id: string): PublishCall | undefined {
    if (this.#unread.size === 0) return undefined
    const call = this.#unread.get(id)
    if (call) this.#unread.delete(id)
    return call
  }

  finish(holder: CallHolder, error?: ClusterError): void {
    const { call } = holder
    holder.call = undefined
    if (!call) return
    call.holder = holder
    this.#settle(call, error)
  }

  /** Call after a complete pass. `outcomeOf`: the outcome of a transaction that the pass did not contain; undefined when it is stored. */
  finishUnread(pass: number, outcomeOf: (id: string) => ClusterError | undefined): void {
    for (const [id, call] of this.#unread) {
      if (call.readInPass > pass) continue
      this.#unread.delete(id)
      this.#settle(call, outcomeOf(id))
    }
  }

  /** Counts the timeout. */
  timeoutError(reason: string, mayStillBeSent: boolean): ClusterError {
    this.#options.onTimeout()
    return publishTimeout(reason, mayStillBeSent)
  }

  stopExpiry(): void {
    this.#stopExpiry()
  }

  /** Rejects every call that waits. */
  close(): void {
    for (const call of this.#unread.values()) this.#settle(call, clusterError('closed'))
    this.#unread.clear()
    for (const holder of this.#options.holders()) this.finish(holder, clusterError('closed'))
  }

  #settle(call: PublishCall, error?: ClusterError): void {
    this.#waiting--
    if (error) call.reject(error)
    else call.resolve()
  }

  #expire(): void {
    const { mesh, timeout, holders } = this.#options
    const now = mesh.timers.elapsed()
    if (now < this.#nextDeadline) return
    this.#nextDeadline = Number.POSITIVE_INFINITY
    const isExpired = ({ deadline }: PublishCall) => {
      if (deadline > now) this.#nextDeadline = Math.min(this.#nextDeadline, deadline)
      return deadline <= now
    }
    const timeoutError = () => this.timeoutError(`${timeout} ms have passed, the mesh is ${mesh.state}`, true)
    for (const [id, call] of this.#unread) {
      if (!isExpired(call)) continue
      this.#unread.delete(id)
      this.#settle(call, timeoutError())
    }
    for (const holder of holders()) if (holder.call && isExpired(holder.call)) this.finish(holder, timeoutError())
  }
}
