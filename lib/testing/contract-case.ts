// One case of a contract suite: any test runner can run it, or a plain program.

import { delay } from '../util/timers.ts'

/** What a test runner passes to its tests: node:test and Vitest have `skip`. */
export type CaseContext = { skip?: (reason?: string) => void }

/**
 * `run` rejects with an AssertionError when the implementation breaks the contract, or with the implementation's own error. It calls
 * `skip` of the context with the reason when the case does not apply.
 */
export type ContractCase = { name: string; run(context?: CaseContext): Promise<void> }

/** More than any case takes. A case that hangs otherwise ends without its name, when the time of the whole run is over. */
const CASE_TIMEOUT_MS = 60_000

/** `work`, bounded: rejects with an Error when it does not end within 60 s. */
export async function bounded(work: () => Promise<void>): Promise<void> {
  const timer = new AbortController()
  const timeout = async () => {
    await delay(CASE_TIMEOUT_MS, undefined, { signal: timer.signal })
    throw new Error(`the case did not end within ${CASE_TIMEOUT_MS} ms`)
  }
  try {
    await Promise.race([work(), timeout()])
  } finally {
    timer.abort()
  }
}

export type SkippedCase = { name: string; reason: string }

/**
 * Runs all cases in order. Resolves with those that do not apply. Rejects with an AggregateError of all failures; each message begins
 * with the name of its case.
 */
export async function runCases(subject: string, cases: readonly ContractCase[]): Promise<SkippedCase[]> {
  const failures: Error[] = []
  const skipped: SkippedCase[] = []
  for (const { name, run } of cases) {
    const context = { skip: (reason = '') => void skipped.push({ name, reason }) }
    await run(context).catch((error) =>
      failures.push(new Error(`${name}: ${(error as Error).message}`, { cause: error })),
    )
  }
  if (failures.length === 0) return skipped
  throw new AggregateError(
    failures,
    `the ${subject} fails ${failures.length} cases: ${failures.map((each) => each.message).join('; ')}`,
  )
}
