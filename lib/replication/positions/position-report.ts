// What a subscriber reports to its source, and the source to nobody.

import type { RemoteTable, TableName } from '../../host/host.ts'
import type { AppliedPosition } from './applied-state.ts'

/** Ranges of a report; the oldest are joined. */
const MAX_RANGES = 256

/** `missing`: epoch, first and last index. `copying`: first and last index. See AppliedPosition. */
export type PositionReport = TableName & {
  epoch: string
  sequence: number
  index: number
  missing?: [epoch: string, from: number, to: number][]
  copying?: [from: number, to: number][]
  isCopying?: boolean
  /** Nothing is applied, because the operator paused the subscription. */
  paused?: boolean
  /** The session of the source's servers in which the position was compared with the stream: it says nothing about that of another one. */
  session?: string
}

/**
 * The reports of one request. `instance`: of the process. `order`: higher than that of every earlier request of the process, so that one
 * which was held up on the way replaces nothing newer.
 */
export type PositionReports = { instance: string; order: number; tables: PositionReport[] }

export function toReport(
  { database, table }: RemoteTable,
  position: AppliedPosition,
  { paused, session }: { paused: boolean; session: string | undefined },
): PositionReport {
  const { epoch, sequence, index, isCopying } = position
  const missing = Object.entries(position.missing).flatMap(([each, ranges]) =>
    joinOldest(ranges).map(([from, to]): [string, number, number] => [each, from, to]),
  )
  const copying = joinOldest(position.copying)
  return {
    ...{ database, table, epoch, sequence, index },
    ...(missing.length > 0 && { missing }),
    ...(copying.length > 0 && { copying }),
    ...(isCopying && { isCopying }),
    ...(paused && { paused }),
    ...(session !== undefined && { session }),
  }
}

function joinOldest(ranges: readonly (readonly [number, number])[]): [number, number][] {
  const excess = Math.max(0, ranges.length - MAX_RANGES)
  const copies = ranges.map(([from, to]): [number, number] => [from, to])
  return excess === 0 ? copies : [[copies[0]![0], copies[excess]![1]], ...copies.slice(excess + 1)]
}

export function fromReport({
  epoch,
  sequence,
  index,
  missing = [],
  copying = [],
  isCopying,
}: PositionReport): AppliedPosition {
  const byEpoch: Record<string, [number, number][]> = Object.create(null)
  for (const [each, from, to] of missing) {
    byEpoch[each] ??= []
    byEpoch[each].push([from, to])
  }
  return { epoch, sequence, index, missing: byEpoch, copying, isCopying: isCopying ?? false }
}
