// Retries what the host rejects until it succeeds, or until the transaction is quarantined on request or after `maxAttempts`.

import { clusterError, reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { Backoff } from '../../util/backoff.ts'
import type { QuarantinedMessage } from './quarantine.ts'
import type { WakeableSleep } from './wakeable-sleep.ts'

export type ApplyRetryContext = {
  counters: ReplicationCounters
  logger: Logger
  /** Attempts after which a refused transaction is quarantined automatically; 0: never. */
  maxApplyAttempts: number
}

export type ApplyRetryOptions = {
  source: RemoteTable
  sleep: WakeableSleep
  /** Aborts when the subscription stops. */
  signal: { readonly aborted: boolean }
  /** Throws TableFaultError when the table is the reason of a rejection. `isFirst`: the first rejection in a row. */
  checkTable(isFirst: boolean): Promise<void>
  onStalled(at: RetriedWork, reason: string, attempts: number): void
}

/** `index`, `id`: of the transaction, if the work is one transaction. */
export type RetriedWork = { sequence: number; index?: number; id?: string | undefined }

/** Quarantines the transaction that is refused. Resolves with undefined when the transaction needs no quarantine. */
type SetAside = (reason: string) => Promise<QuarantinedMessage | undefined>

/** A transaction that the database refuses now, and the request of an operator to quarantine it. */
type Refusal = { request?: PromiseWithResolvers }
type PromiseWithResolvers = {
  promise: Promise<QuarantinedMessage>
  resolve(message: QuarantinedMessage): void
  reject(error: unknown): void
}

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 2_000 }
/** Transactions that are quarantined automatically in a row. If the database refuses more, the cause is not the transactions. */
const MAX_AUTOMATIC = 10

export class ApplyRetry {
  readonly #context: ApplyRetryContext
  readonly #options: ApplyRetryOptions
  #refusal: Refusal | undefined
  /** The attempt in progress. */
  #current: { at: RetriedWork; attempts: number } | undefined
  /** Transactions quarantined automatically since the last one that was applied. */
  #automatic = 0

  constructor(context: ApplyRetryContext, options: ApplyRetryOptions) {
    this.#context = context
    this.#options = options
  }

  /** A transaction was applied. */
  onApplied(): void {
    this.#automatic = 0
  }

  /**
   * Quarantines the transaction that is refused now, after one more attempt. Rejects subscription_not_stalled without one, or
   * when this attempt succeeds; and as the quarantine and the host do.
   */
  quarantineRefused(): Promise<QuarantinedMessage> {
    if (!this.#refusal) return Promise.reject(this.#notStalled())
    this.#refusal.request ??= withResolvers()
    this.#options.sleep.wake()
    return this.#refusal.request.promise
  }

  /**
   * Resolves when `work` has succeeded or its transaction is quarantined; with true if `work` was rejected before. Rejects when the
   * subscription stops or must be read again, and with TableFaultError.
   */
  async run(at: RetriedWork, work: () => Promise<void>, setAside?: SetAside): Promise<boolean> {
    const { sleep, signal } = this.#options
    const backoff = new Backoff(RETRY_BACKOFF)
    try {
      for (let attempts = 1; ; attempts++) {
        const reason = await this.attempt(at, work, attempts)
        if (reason === undefined) return attempts > 1
        this.#options.onStalled(at, reason, attempts)
        if (setAside) {
          this.#refusal ??= {}
          if (await this.#setAside(setAside, reason, attempts)) return true
        }
        await sleep.sleep(backoff.next())
        if (signal.aborted) throw new MeshError('aborted', 'the subscription ended')
      }
    } finally {
      this.#refusal?.request?.reject(this.#notStalled())
      this.#refusal = undefined
    }
  }

  /** Resolves with the reason when the host rejects `work`. Rejects as `run`. */
  async attempt(at: RetriedWork, work: () => Promise<void>, attempts = 1): Promise<string | undefined> {
    const { signal, checkTable } = this.#options
    this.#current = { at, attempts }
    try {
      await work()
      return undefined
    } catch (error) {
      if (signal.aborted) throw new MeshError('aborted', 'the subscription ended')
      if (error instanceof MeshError) throw error
      this.#context.counters.retries++
      await checkTable(attempts === 1)
      return reasonOf(error)
    } finally {
      this.#current = undefined
    }
  }

  /** True when the transaction is quarantined. It is the only attempt: the next one follows after the next rejection. */
  async #setAside(setAside: SetAside, reason: string, attempts: number): Promise<boolean> {
    const { maxApplyAttempts: maxAttempts, logger } = this.#context
    const refusal = this.#refusal!
    const { request } = refusal
    const isDue = maxAttempts > 0 && attempts >= maxAttempts && this.#automatic < MAX_AUTOMATIC
    if (!request && !isDue) return false
    try {
      // It commits the checkpoint alone. A database that refuses that too has another fault.
      const message = await setAside(reason)
      if (!request) this.#automatic++
      if (message) request?.resolve(message)
      return true
    } catch (error) {
      if (error instanceof MeshError) throw error
      delete refusal.request
      request?.reject(error)
      const { node: peer, database, table } = this.#options.source
      logger.warn({ peer, database, table, reason: reasonOf(error) }, 'cannot quarantine a refused transaction')
      return false
    }
  }

  #notStalled() {
    const { node, database, table } = this.#options.source
    return clusterError('subscription_not_stalled', node, `${database}.${table}`)
  }

  /** The database has not answered. False when no attempt is in progress. */
  reportSlow(reason: string): boolean {
    if (!this.#current) return false
    this.#options.onStalled(this.#current.at, reason, this.#current.attempts)
    return true
  }
}

function withResolvers(): PromiseWithResolvers {
  let resolve!: PromiseWithResolvers['resolve']
  let reject!: PromiseWithResolvers['reject']
  const promise = new Promise<QuarantinedMessage>((onResolve, onReject) => {
    resolve = onResolve
    reject = onReject
  })
  return { promise, resolve, reject }
}
