// How a subscription is to begin, as an operation asked for it. Not a field of the manifest: it takes effect once, on the node that
// subscribes.

import type { Timestamp } from '../host/host.ts'

export type StartFields = {
  /** ISO 8601, UTC: the stream is read from the first message stored since then. */
  readonly startTime?: string | undefined
  /** True: the rows of the source are copied, also of a running subscription. False: a new subscription begins without a copy. */
  readonly copy?: boolean | undefined
  /** With `copy`: the local table is emptied first. Not sent to the remote node. */
  readonly replace?: boolean | undefined
}

export type StartRequest = StartFields & {
  /** Revision of the change that asked for it. A checkpoint names the last request that it has begun. */
  readonly id: Timestamp
}

/** Undefined if nothing is asked for. */
export function startRequest(id: Timestamp, { startTime, copy, replace }: StartFields): StartRequest | undefined {
  if (startTime === undefined && copy === undefined) return undefined
  return {
    id,
    ...(startTime !== undefined && { startTime }),
    ...(copy !== undefined && { copy }),
    ...(replace && { replace }),
  }
}
