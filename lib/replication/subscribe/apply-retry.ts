// Retries what the host rejects, until it succeeds: a subscription never skips a transaction by itself.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable } from '../../host/host.ts'
import { MeshError } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import { Backoff } from '../../util/backoff.ts'
import type { Timers } from '../../util/timers.ts'
import type { WakeableSleep } from './wakeable-sleep.ts'

export type ApplyRetryOptions = {
  source: RemoteTable
  timers: Timers
  sleep: WakeableSleep
  /** Aborts when the subscription stops. */
  signal: AbortSignal
  counters: ReplicationCounters
  logger: Logger
  /** Creates the local table if it was dropped; has no effect when it exists. */
  restoreTable(source: RemoteTable): Promise<void>
  onStalled(sequence: number, reason: string, attempts: number): void
}

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 2_000 }

export class ApplyRetry {
  readonly #options: ApplyRetryOptions
  /** The attempt in progress. */
  #current: { sequence: number; attempts: number } | undefined

  constructor(options: ApplyRetryOptions) {
    this.#options = options
  }

  /** Resolves when `work` has succeeded. Rejects when the subscription stops before that, or must read again (reader_lost). */
  async run(sequence: number, work: () => Promise<void>): Promise<void> {
    const { source, sleep, signal, counters, logger, restoreTable, onStalled } = this.#options
    let backoff: Backoff | undefined
    for (let attempts = 1; ; attempts++) {
      this.#current = { sequence, attempts }
      try {
        return await work()
      } catch (error) {
        if (error instanceof MeshError && error.code === 'reader_lost') throw error
        if (!signal.aborted) onStalled(sequence, reasonOf(error), attempts)
      } finally {
        this.#current = undefined
      }
      counters.retries++
      // The table may have been dropped since the subscription was agreed on.
      await restoreTable(source).catch((error) =>
        logger.warn({ ...source, reason: reasonOf(error) }, 'cannot create the table'),
      )
      backoff ??= new Backoff(RETRY_BACKOFF)
      if (!signal.aborted) await sleep.sleep(backoff.next())
      if (signal.aborted) throw new MeshError('aborted', 'the subscription ended')
    }
  }

  /** The database has not answered. False when no attempt is in progress. */
  reportSlow(reason: string): boolean {
    if (!this.#current) return false
    this.#options.onStalled(this.#current.sequence, reason, this.#current.attempts)
    return true
  }
}
