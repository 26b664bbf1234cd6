// The time that rooms go by: of the system, or one that a test turns.

export interface Timers {
  /** ms since 1970. */
  now(): number
  /** ms since some moment; never goes back. */
  elapsed(): number
  /** Calls `work` once, after `ms`. Calling what it returns has it forgotten. Until then the process lives. */
  after(ms: number, work: () => void): () => void
  /** Calls `work` every `ms`, likewise; keeps no process alive. */
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
