// Removed subscriptions that have not ended: they still run, or the host has not deleted their checkpoint. The deletion is retried
// until it succeeds, because a later subscription would resume at a checkpoint that remains.

import { type ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import type { KeyedMutex } from '../../util/keyed-mutex.ts'
import type { Timers } from '../../util/timers.ts'

/** A change of the manifest that is not in effect yet, because the database does not answer or rejects it. */
export type PendingChange = { source: RemoteTable; reason: string }

type Ending = {
  readonly source: RemoteTable
  /** ms, by `Timers.elapsed`. */
  readonly since: number
  /** Why it has not ended yet. */
  reason: string
  error?: unknown
  readonly backoff: Backoff
  cancelRetry: () => void
}

export type EndingSubscriptionsOptions = {
  timers: Timers
  logger: Logger
  /** Serializes the changes of each subscription. */
  mutex: KeyedMutex
  /** ms that a new subscription waits for the end of an earlier one. */
  timeout: number
  keyOf(source: RemoteTable): string
  isRunning(key: string): boolean
  /** Deletes the checkpoint and what belongs to it. */
  deleteCheckpoint(source: RemoteTable): Promise<void>
}

const DELETE_BACKOFF_MS = { first: 1_000, max: 30_000 }

export class EndingSubscriptions {
  readonly #options: EndingSubscriptionsOptions
  readonly #ending = new Map<string, Ending>()
  #closed = false

  constructor(options: EndingSubscriptionsOptions) {
    this.#options = options
  }

  list(): PendingChange[] {
    return [...this.#ending.values()].map(({ source, reason }) => ({ source, reason }))
  }

  begin(source: RemoteTable, reason: string): void {
    this.#add(source, reason)
  }

  /** The subscription was added again. */
  cancel(key: string): void {
    this.#ending.get(key)?.cancelRetry()
    this.#ending.delete(key)
  }

  /** Deletes the checkpoint, and retries that later when the host rejects it. Call it in the mutex, while no subscriber runs. */
  async finish(source: RemoteTable): Promise<void> {
    const { timers, logger, keyOf, deleteCheckpoint } = this.#options
    const key = keyOf(source)
    try {
      await deleteCheckpoint(source)
      this.cancel(key)
    } catch (error) {
      const reason = reasonOf(error)
      logger.warn(
        { peer: source.node, database: source.database, table: source.table, reason },
        'cannot delete the checkpoint, retrying later',
      )
      const ending = this.#add(source, reason)
      ending.error = error
      ending.cancelRetry()
      if (!this.#closed) ending.cancelRetry = timers.after(ending.backoff.next(), () => void this.#retry(key, source))
    }
  }

  /** As `finish`, before a new subscription starts: rejects as the host does. */
  async finishBefore(key: string): Promise<void> {
    const ending = this.#ending.get(key)
    if (!ending) return
    await this.finish(ending.source)
    if (this.#ending.has(key)) throw ending.error
  }

  async retryAll(): Promise<void> {
    await Promise.all([...this.#ending].map(([key, { source }]) => this.#retry(key, source)))
  }

  /** Waits a limited time until a change of this subscription that is in progress has ended. Rejects host_timeout. */
  async wait(key: string): Promise<void> {
    if (!this.#ending.has(key)) return
    const { timers, mutex, timeout } = this.#options
    const limit = new AbortController()
    const cancel = timers.after(timeout, () => limit.abort(this.#timeoutError(key)))
    await mutex.run(key, () => {}, limit.signal).finally(cancel)
  }

  close(): void {
    this.#closed = true
    for (const { cancelRetry } of this.#ending.values()) cancelRetry()
  }

  /** After `close`. */
  reopen(): void {
    this.#closed = false
  }

  #add(source: RemoteTable, reason: string): Ending {
    const { timers, keyOf } = this.#options
    const key = keyOf(source)
    const known = this.#ending.get(key)
    if (known) return Object.assign(known, { reason })
    const backoff = new Backoff(DELETE_BACKOFF_MS)
    const ending = { source, since: timers.elapsed(), reason, backoff, cancelRetry: () => {} }
    this.#ending.set(key, ending)
    return ending
  }

  #retry(key: string, source: RemoteTable): Promise<void> {
    const { mutex, isRunning } = this.#options
    return mutex.run(key, async () => {
      if (this.#ending.has(key) && !isRunning(key) && !this.#closed) await this.finish(source)
    })
  }

  #timeoutError(key: string): ClusterError {
    const { timers } = this.#options
    const { since = timers.elapsed(), reason } = this.#ending.get(key) ?? {}
    const ms = timers.elapsed() - since
    return clusterError('host_timeout', `the end of the previous subscription (${reason})`, ms)
  }
}
