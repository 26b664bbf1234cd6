// What every Host must do, as cases for any test runner or a plain program.

import { type CaseContext, type ContractCase, runCases, type SkippedCase } from '../contract-case.ts'
import { atomicityCases, dropCases } from './atomicity.ts'
import { checkpointCases, durableCases } from './checkpoints.ts'
import { mergeCases } from './merging.ts'
import { durableOutboxCases, outboxCases } from './outbox.ts'
import { restampCases } from './restamp.ts'
import { rowCases } from './rows.ts'
import { type HostCase, HostScene, type HostUnderTest } from './scene.ts'

export type { HostUnderTest }

/** Why a case does not apply to a host; undefined if it does. */
type Condition = (subject: HostUnderTest) => string | undefined

const needsOutbox: Condition = ({ host }) => (host.readOutbox ? undefined : 'the host has no outbox')
const needsRestamp: Condition = ({ host }) => (host.restamp ? undefined : "the host has no 'restamp'")
const needsReopen: Condition = ({ reopen }) => (reopen ? undefined : "the subject has no 'reopen'")
const needsDrop: Condition = ({ dropTable }) => (dropTable ? undefined : "the subject has no 'dropTable'")

/**
 * `for (const { name, run } of hostContract(create)) test(name, run)`. `create` opens a new database for each case. Cases that do not
 * apply are skipped with the reason: those of the outbox for a host without one, those of `restamp` for a host without it, those
 * with a restart without `reopen`, those that drop a table without `dropTable`. A test runner that passes no context with `skip`
 * shows them as passed.
 */
export function hostContract(create: () => HostUnderTest | Promise<HostUnderTest>): ContractCase[] {
  const group = (cases: Record<string, HostCase>, ...conditions: Condition[]): ContractCase[] =>
    Object.entries(cases).map(([name, work]) => ({
      name,
      // A default, so that the function has no required parameter: Jest would take that for a callback.
      run: async (context: CaseContext = {}) => {
        const subject = await create()
        try {
          const reason = conditions.map((condition) => condition(subject)).find((each) => each !== undefined)
          if (reason === undefined) await work(new HostScene(subject))
          else context.skip?.(reason)
        } finally {
          await subject.close?.()
        }
      },
    }))
  return [
    ...group({ ...rowCases, ...mergeCases, ...checkpointCases, ...atomicityCases }),
    ...group(restampCases, needsRestamp),
    ...group(durableCases, needsReopen),
    ...group(dropCases, needsDrop),
    ...group(outboxCases, needsOutbox),
    ...group(durableOutboxCases, needsOutbox, needsReopen),
  ]
}

/**
 * Runs all cases without a test runner. Resolves with the cases that do not apply. Rejects with an AggregateError of all failures;
 * each message begins with the name of its case.
 */
export function checkHost(create: () => HostUnderTest | Promise<HostUnderTest>): Promise<SkippedCase[]> {
  return runCases('host', hostContract(create))
}
