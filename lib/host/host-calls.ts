// Calls into the host: their time limit, their reports, and which of them must not begin while an earlier one has not ended.

import { type ClusterError, clusterError } from '../errors.ts'
import { KeyedMutex } from '../util/keyed-mutex.ts'
import { clearTimeout, setTimeout, type Timers } from '../util/timers.ts'
import type { Host } from './host.ts'

/** A call, as the log and the events show it. `node`: the remote node of the transactions. */
export type HostCall = { method: keyof Host; node?: string; database?: string; table?: string }

/** `ms` since the call began; `answered`: it ended now. */
export type SlowHostCall = HostCall & { ms: number; answered: boolean }

export type HostCallsOptions = {
  /** ms for each call. Then it rejects host_timeout, although the host may still be working on it. */
  timeout: number
  timers: Timers
  logger: { [Level in 'info' | 'warn']: (details: object, message: string) => void }
  /** A call has not answered for `SLOW_CALL_MS`. Repeated until the call ends, and once more then. */
  onSlow(call: SlowHostCall): void
}

/** Calls that wait for each other. */
export type Lane = {
  key: string
  /** Later calls reject while this number of calls is overdue. */
  maxOverdue: number
  /** One call at a time; otherwise calls overlap. */
  isExclusive?: boolean
}

/** ms without an answer between two reports. */
export const SLOW_CALL_MS = 5_000
/** The same for a call that is overdue. */
const OVERDUE_REPORT_MS = 60_000
/** ms of the system's time that calls have when the manager closes. */
const CLOSE_TIMEOUT_MS = 5_000

/** A call that the host has not ended. It is overdue when its caller no longer waits for it. */
export type CallInProgress = {
  readonly call: HostCall
  readonly lane: Lane
  started: number
  /** Rejects the call for its caller. */
  readonly reject: (error: Error) => void
  /** Aborts the signal that the host received. */
  readonly abort: (error: Error) => void
  /** False while it waits for an earlier call of its lane. */
  isRunning: boolean
  isReported: boolean
  isOverdue: boolean
  nextReport: number
}

export class HostCalls {
  readonly #options: HostCallsOptions
  readonly #mutex = new KeyedMutex()
  /** Oldest first. */
  readonly #inProgress = new Set<CallInProgress>()
  /** Number of overdue calls by key of the lane. */
  readonly #overdue = new Map<string, number>()
  #cancelCheck: (() => void) | undefined
  #closed = false

  constructor(options: HostCallsOptions) {
    this.#options = options
  }

  /** Settles as `work` does. Rejects host_timeout, aborted (by `caller`) and closed; the signal of `work` aborts then. */
  run<T>(
    call: HostCall,
    lane: Lane,
    work: (options: { readonly signal: AbortSignal }) => T | PromiseLike<T>,
    caller?: AbortSignal,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (caller?.aborted) return reject(clusterError('aborted', call.method))
      const [options, abort] = lazySignal()
      const current = this.begin(call, lane, reject, abort)
      if (!current) return
      const onAbort = caller && (() => this.#giveUp(current, clusterError('aborted', call.method)))
      if (onAbort) caller.addEventListener('abort', onAbort, { once: true })
      const task = async () => {
        // It was free, and was given up before it began.
        if (current.isOverdue) throw options.signal.reason
        current.isRunning = true
        return work(options)
      }
      current.isRunning = !lane.isExclusive
      const end = () => {
        if (onAbort) caller.removeEventListener('abort', onAbort)
        this.end(current)
      }
      const settled = (value: T) => {
        resolve(value)
        end()
      }
      const failed = (error: unknown) => {
        reject(error)
        end()
      }
      const result = lane.isExclusive ? this.#runExclusive(lane.key, task, options) : task()
      result.then(settled, failed)
    })
  }

  /** A call that need not wait needs no signal. */
  #runExclusive<T>(key: string, task: () => Promise<T>, options: { readonly signal: AbortSignal }): Promise<T> {
    return this.#mutex.isFree(key) ? this.#mutex.run(key, task) : this.#mutex.run(key, task, options.signal)
  }

  /** Begins the time limit of a call. Rejects and returns undefined when the call must not begin. Call `end` when the host has ended it. */
  begin(
    call: HostCall,
    lane: Lane,
    reject: (error: Error) => void,
    abort: (error: Error) => void,
  ): CallInProgress | undefined {
    const state = { isRunning: true, isReported: false, isOverdue: false, nextReport: 0 }
    const current: CallInProgress = { call, lane, started: 0, reject, abort, ...state }
    return this.beginAgain(current) ? current : undefined
  }

  /** As `begin`, for a call that has ended in time: without another object for each step of an iteration. False when it must not begin. */
  beginAgain(current: CallInProgress): boolean {
    const { lane, reject } = current
    const error = this.#closed ? clusterError('closed') : this.#isBlocked(lane) ? this.#timeoutError(lane) : undefined
    if (error) reject(error)
    if (error) return false
    current.started = this.#options.timers.elapsed()
    current.isReported = false
    current.nextReport = current.started + SLOW_CALL_MS
    this.#inProgress.add(current)
    if (!this.#cancelCheck) this.#scheduleCheck(this.#dueAt(current) - current.started)
    return true
  }

  #isBlocked({ key, maxOverdue }: Lane): boolean {
    return this.#overdue.size > 0 && (this.#overdue.get(key) ?? 0) >= maxOverdue
  }

  end(current: CallInProgress): void {
    if (!this.#inProgress.delete(current)) return
    if (current.isOverdue) this.#overdue.set(current.lane.key, this.#overdue.get(current.lane.key)! - 1)
    if (current.isReported) this.#report(current, true)
  }

  /** Calls in progress and later ones have a short time. The returned function rejects those that have not ended by then. */
  beginClose(): () => void {
    const close = () => {
      this.#closed = true
      for (const each of this.#inProgress) this.#giveUp(each, clusterError('closed'))
    }
    const timer = setTimeout(close, CLOSE_TIMEOUT_MS)
    return () => {
      clearTimeout(timer)
      close()
      this.#cancelCheck?.()
    }
  }

  /** One timer for all calls. It stays when a call ends, because calls are many and short. */
  #scheduleCheck(ms: number): void {
    this.#cancelCheck = this.#options.timers.after(Math.max(ms, 0), () => this.#check())
  }

  #check(): void {
    this.#cancelCheck = undefined
    const { timers, timeout } = this.#options
    const now = timers.elapsed()
    for (const each of this.#inProgress) {
      const isOver = !each.isOverdue && each.started + timeout <= now
      if (!isOver && each.nextReport > now) continue
      if (each.isRunning) this.#report(each, false)
      if (isOver) this.#giveUp(each, this.#timeoutError(each.lane))
      each.nextReport = now + (each.isOverdue ? OVERDUE_REPORT_MS : SLOW_CALL_MS)
    }
    const due = Math.min(...[...this.#inProgress].map((each) => this.#dueAt(each)))
    if (due < Number.POSITIVE_INFINITY) this.#scheduleCheck(due - now)
  }

  #dueAt({ isOverdue, started, nextReport }: CallInProgress): number {
    return isOverdue ? nextReport : Math.min(nextReport, started + this.#options.timeout)
  }

  #giveUp(current: CallInProgress, error: ClusterError): void {
    if (current.isOverdue) return
    current.isOverdue = true
    this.#overdue.set(current.lane.key, (this.#overdue.get(current.lane.key) ?? 0) + 1)
    current.reject(error)
    current.abort(error)
  }

  #report(current: CallInProgress, answered: boolean): void {
    const { timers, logger, onSlow } = this.#options
    current.isReported = true
    const slow = { ...current.call, ms: Math.round(timers.elapsed() - current.started), answered }
    const { node: peer, ...rest } = slow
    const fields = { ...(peer === undefined ? {} : { peer }), ...rest }
    if (answered) logger.info(fields, 'the database answers again')
    else logger.warn(fields, 'the database does not answer')
    onSlow(slow)
  }

  /** Names the oldest call of the lane: later ones wait for it. */
  #timeoutError(lane: Lane): ClusterError {
    for (const {
      lane: { key },
      call: { method, database, table },
      started,
    } of this.#inProgress) {
      if (key !== lane.key) continue
      const ms = Math.round(this.#options.timers.elapsed() - started)
      return clusterError('host_timeout', table === undefined ? method : `${method} of ${database}.${table}`, ms)
    }
    throw new Error(`no call of lane ${lane.key} is in progress`)
  }
}

/**
 * A signal that is created when it is first read, and the function that aborts it: creating one for each call would cost more than the
 * rest of the call. An own property, which a host may copy.
 */
function lazySignal(): [options: { readonly signal: AbortSignal }, abort: (error: Error) => void] {
  let controller: AbortController | undefined
  let reason: Error | undefined
  const options = {
    get signal(): AbortSignal {
      controller ??= new AbortController()
      if (reason) controller.abort(reason)
      return controller.signal
    },
  }
  const abort = (error: Error): void => {
    reason = error
    controller?.abort(error)
  }
  return [options, abort]
}
