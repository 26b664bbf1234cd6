// Ends several things one after the other, whatever happens on the way.

import { clearTimeout, setTimeout } from './timers.ts'

/** Name and work of a step, and the ms after which the next step follows although this one has not settled. Default: none. */
export type EndStep = readonly [name: string, work: () => unknown, timeout?: number]

/**
 * Runs every step, in order, also after one that throws, rejects or takes too long. Then rejects with the only error, or with an
 * AggregateError; `failed` is called for each error at once.
 */
export async function runSteps(
  steps: readonly EndStep[],
  failed: (step: string, error: Error) => void = () => {},
): Promise<void> {
  const errors: Error[] = []
  for (const [name, work, timeout] of steps) {
    let timer: NodeJS.Timeout | undefined
    const expired = new Promise<never>((_, reject) => {
      if (timeout === undefined) return
      timer = setTimeout(() => reject(new Error(`${name} did not end within ${timeout} ms`)), timeout)
    })
    try {
      await Promise.race([(async () => work())(), expired])
    } catch (error) {
      const reason = error instanceof Error ? error : new Error(String(error))
      errors.push(reason)
      failed(name, reason)
    } finally {
      clearTimeout(timer)
    }
  }
  if (errors.length === 1) throw errors[0]
  if (errors.length > 1) throw new AggregateError(errors, errors.map(({ message }) => message).join('; '))
}
