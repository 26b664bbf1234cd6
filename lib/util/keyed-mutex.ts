// Mutual exclusion by key: tasks of one key run one after the other, tasks of different keys at the same time.

import { withAbort } from './abort.ts'

export class KeyedMutex {
  /** The last task of each key; settles, never rejects. */
  readonly #last = new Map<string, Promise<void>>()
  /** The last task of all keys together. */
  #lastOfAll: Promise<void> = Promise.resolve()

  /** A task of this key, added now, waits for no other of its key. */
  isFree(key: string): boolean {
    return !this.#last.has(key)
  }

  /**
   * Settles as `task` does, which starts when every earlier task of this key has settled. When the signal aborts before that, the
   * task never runs and this rejects with the signal's reason.
   */
  run<T>(key: string, task: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    const [result, done] = start(this.#last.get(key) ?? this.#lastOfAll, task, signal)
    this.#last.set(key, done)
    void done.then(() => {
      if (this.#last.get(key) === done) this.#last.delete(key)
    })
    return result
  }

  /** As `run`, for all keys: starts when every earlier task has settled, and every later one waits for it. */
  runExclusive<T>(task: () => T | Promise<T>, signal?: AbortSignal): Promise<T> {
    const [result, done] = start(Promise.all([this.#lastOfAll, ...this.#last.values()]), task, signal)
    this.#last.clear()
    this.#lastOfAll = done
    return result
  }
}

const ignore = (): void => {}

/** A task that waits for `earlier`; `done` also waits for it when the task was aborted, so that later tasks keep their place. */
function start<T>(
  earlier: Promise<unknown>,
  task: () => T | Promise<T>,
  signal: AbortSignal | undefined,
): [result: Promise<T>, done: Promise<void>] {
  const result = withAbort(earlier, signal).then(task)
  if (!signal) return [result, result.then(ignore, ignore)]
  return [result, Promise.allSettled([earlier, result]).then(() => {})]
}
