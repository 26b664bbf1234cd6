// Passes one step of a subscription to the database.

import type { ApplyResult, Batch, Host } from '../../host/host.ts'
import { traced } from '../../observe/diagnostics.ts'
import { withVersion } from './checkpoint-version.ts'
import type { Step } from './unsettled-steps.ts'

/** Resolves with what the host says about the effect, if it does. Rejects as the host does. */
export async function commitStep(
  { source, transactions, relayed, copy, ...step }: Step,
  host: Pick<Host, 'apply' | 'emptyTable'>,
  node: string,
): Promise<ApplyResult | undefined> {
  const { empties, ...copyOptions } = copy ?? {}
  const checkpoint = withVersion(step.checkpoint)
  if (empties) {
    if (!host.emptyTable) throw new Error("the database cannot empty tables: 'emptyTable' is missing")
    await host.emptyTable({ source, checkpoint, ...copyOptions })
    return undefined
  }
  const batch: Batch = {
    source,
    transactions,
    checkpoint,
    ...(relayed.length > 0 && { relay: relayed }),
    ...(copy && { isCopy: true, ...copyOptions }),
  }
  const outcome = await traced(
    'apply',
    () => ({ node, batch }),
    () => host.apply(batch),
  )
  return outcome ?? undefined
}
