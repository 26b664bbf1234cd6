// What every Host must do, as cases for any test runner or a plain program.

import { type ContractCase, runCases } from '../contract-case.ts'
import { checkpointCases, durableCases } from './checkpoints.ts'
import { mergeCases } from './merging.ts'
import { durableOutboxCases, outboxCases } from './outbox.ts'
import { restampCases } from './restamp.ts'
import { rowCases } from './rows.ts'
import { type HostCase, HostScene, type HostUnderTest } from './scene.ts'

export type { HostUnderTest }

const hasOutbox = ({ host }: HostUnderTest) => host.readOutbox !== undefined
const canRestamp = ({ host }: HostUnderTest) => host.restamp !== undefined
const isDurable = ({ reopen }: HostUnderTest) => reopen !== undefined

/**
 * `for (const { name, run } of hostContract(create)) test(name, run)`. `create` opens a new database for each case. Cases of the
 * outbox pass for a host without an outbox, those of `restamp` for a host without it; cases with a restart pass for a host without `reopen`.
 */
export function hostContract(create: () => HostUnderTest | Promise<HostUnderTest>): ContractCase[] {
  const group = (cases: Record<string, HostCase>, applies: (subject: HostUnderTest) => boolean): ContractCase[] =>
    Object.entries(cases).map(([name, work]) => ({
      name,
      run: async () => {
        const subject = await create()
        try {
          if (applies(subject)) await work(new HostScene(subject))
        } finally {
          await subject.close?.()
        }
      },
    }))
  return [
    ...group({ ...rowCases, ...mergeCases, ...checkpointCases }, () => true),
    ...group(restampCases, canRestamp),
    ...group(durableCases, isDurable),
    ...group(outboxCases, hasOutbox),
    ...group(durableOutboxCases, (subject) => hasOutbox(subject) && isDurable(subject)),
  ]
}

/** Runs all cases without a test runner. Rejects with an AggregateError of all failures; each message begins with the name of its case. */
export async function checkHost(create: () => HostUnderTest | Promise<HostUnderTest>): Promise<void> {
  await runCases('host', hostContract(create))
}
