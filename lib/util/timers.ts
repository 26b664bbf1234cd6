// The time that modules use: the system's, or that of a test clock.

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
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms)
    return () => clearTimeout(timer)
  },
  every(ms, work) {
    const timer = setInterval(work, ms).unref()
    return () => clearInterval(timer)
  },
}
