// What every Host must do, as cases for any test runner or a plain program.

import { type CaseContext, type ContractCase, runCases, type SkippedCase } from '../contract-case.ts'
import { alterCases } from './alter-table.ts'
import { atomicityCases, dropCases } from './atomicity.ts'
import { checkpointCases, durableCases } from './checkpoints.ts'
import { emptyingCases } from './emptying.ts'
import { existingCases } from './existing-rows.ts'
import { droppedHorizonCases, horizonCases, tombstoneCases } from './horizon.ts'
import { mergeCases } from './merging.ts'
import { durableOutboxCases, outboxCases } from './outbox.ts'
import { restampCases } from './restamp.ts'
import { rowCases } from './rows.ts'
import { droppedReadCases, durableReadCases, goneRowCases, readCases } from './rows-read.ts'
import { type HostCase, HostScene, type HostUnderTest } from './scene.ts'
import { unrecordedCases } from './unrecorded.ts'

export type { HostUnderTest }

/** Why a case does not apply to a host; undefined if it does. */
type Condition = (subject: HostUnderTest) => string | undefined

const needsOutbox: Condition = ({ host }) => (host.readOutbox ? undefined : 'the host has no outbox')
const needsRestamp: Condition = ({ host }) => (host.restamp ? undefined : "the host has no 'restamp'")
const needsReopen: Condition = ({ reopen }) => (reopen ? undefined : "the subject has no 'reopen'")
const needsDrop: Condition = ({ dropTable }) => (dropTable ? undefined : "the subject has no 'dropTable'")
const needsAlter: Condition = ({ host }) => (host.alterTable ? undefined : "the host has no 'alterTable'")
const needsReadRows: Condition = ({ host }) => (host.readRows ? undefined : "the host has no 'readRows'")
const needsHorizon: Condition = ({ host }) => (host.horizon ? undefined : "the host has no 'horizon'")
const needsEmptying: Condition = ({ host }) => (host.emptyTable ? undefined : "the host has no 'emptyTable'")
const needsTombstones: Condition = ({ dropTombstones }) =>
  dropTombstones ? undefined : "the subject has no 'dropTombstones'"
const needsUnrecorded: Condition = ({ host, commitUnrecorded }) =>
  !host.lastUnrecorded
    ? "the host has no 'lastUnrecorded'"
    : commitUnrecorded
      ? undefined
      : "the subject has no 'commitUnrecorded'"
const needsBase: Condition = ({ host }) => (host.setBaseTimestamp ? undefined : "the host has no 'setBaseTimestamp'")
const needsExisting: Condition = ({ storeExisting }) =>
  storeExisting ? undefined : "the subject has no 'storeExisting'"

/**
 * `for (const { name, run } of hostContract(create)) test(name, run)`. `create` opens a new database for each case. Cases that do not
 * apply are skipped with the reason: those of an optional method (the outbox, `alterTable`, `restamp`, `readRows`, `horizon`, `emptyTable`,
 * `setBaseTimestamp`, `lastUnrecorded`) for a host without it, those with a restart without `reopen`, and in the same way those of `dropTable`,
 * `dropTombstones`, `storeExisting` and `commitUnrecorded`. A
 * test runner that passes no context with `skip` shows them as passed.
 */
export function hostContract(create: () => HostUnderTest | Promise<HostUnderTest>): ContractCase[] {
  const group = (cases: Record<string, HostCase>, ...conditions: Condition[]): ContractCase[] =>
    Object.entries(cases).map(([name, work]) => ({
      name,
      // A default, so that the function has no required parameter: Jest would take that for a callback.
      run: async (context: CaseContext = {}) => {
        const scene = new HostScene(await create(), create)
        try {
          const reason = conditions.map((condition) => condition(scene.subject)).find((each) => each !== undefined)
          if (reason === undefined) await work(scene)
          else context.skip?.(reason)
        } finally {
          await scene.close()
        }
      },
    }))
  return [
    ...group({ ...rowCases, ...mergeCases, ...checkpointCases, ...atomicityCases }),
    ...group(alterCases, needsAlter),
    ...group(restampCases, needsRestamp),
    ...group(durableCases, needsReopen),
    ...group(dropCases, needsDrop),
    ...group(readCases, needsReadRows),
    ...group(durableReadCases, needsReadRows, needsReopen),
    ...group(droppedReadCases, needsReadRows, needsDrop),
    ...group(goneRowCases, needsReadRows, needsTombstones),
    ...group(horizonCases, needsHorizon),
    ...group(tombstoneCases, needsHorizon, needsReadRows, needsTombstones),
    ...group(droppedHorizonCases, needsHorizon, needsDrop),
    ...group(emptyingCases, needsEmptying),
    ...group(existingCases, needsReadRows, needsBase, needsExisting),
    ...group(outboxCases, needsOutbox),
    ...group(durableOutboxCases, needsOutbox, needsReopen),
    ...group(unrecordedCases, needsOutbox, needsUnrecorded),
  ]
}

/**
 * Runs all cases without a test runner. Resolves with the cases that do not apply. Rejects with an AggregateError of all failures;
 * each message begins with the name of its case.
 */
export function checkHost(create: () => HostUnderTest | Promise<HostUnderTest>): Promise<SkippedCase[]> {
  return runCases('host', hostContract(create))
}
