// The time that modules use: the system's, or that of a test clock. Fake timers of test runners replace the global functions, and everything that
// enmesh waits for would stand still. So the functions are held as they are when this module is loaded, and other modules take them from here.

import { setTimeout as timeoutOf, setImmediate as turnOf } from 'node:timers/promises'

/** Tests of enmesh that control the time of the system replace functions of this object. */
export const systemTime = {
  now: Date.now,
  elapsed: performance.now.bind(performance),
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
}

export const setTimeout = (work: () => void, ms: number): NodeJS.Timeout => systemTime.setTimeout(work, ms)
export const clearTimeout = (timer: NodeJS.Timeout | undefined): void => systemTime.clearTimeout(timer)
export const setInterval = (work: () => void, ms: number): NodeJS.Timeout => systemTime.setInterval(work, ms)
export const clearInterval = (timer: NodeJS.Timeout | undefined): void => systemTime.clearInterval(timer)
export const { setImmediate, clearImmediate, queueMicrotask } = globalThis

/** Resolves after `ms`. */
export const delay = timeoutOf

/** Resolves in the next turn of the event loop. */
export const nextTurn = turnOf

export interface Timers {
  /** ms since 1970. */
  now(): number
  /** ms since an arbitrary start; monotonic. */
  elapsed(): number
  /** Calls `work` once, after `ms`. The returned function cancels it. Keeps the process alive until then. */
  after(ms: number, work: () => void): () => void
  /** Calls `work` every `ms`. The returned function cancels it. Does not keep the process alive. */
  every(ms: number, work: () => void): () => void
}

export const systemTimers: Timers = {
  now: () => systemTime.now(),
  elapsed: () => systemTime.elapsed(),
  after(ms, work) {
    const timer = setTimeout(work, ms)
    return () => clearTimeout(timer)
  },
  every(ms, work) {
    const timer = setInterval(work, ms).unref()
    return () => clearInterval(timer)
  },
}
