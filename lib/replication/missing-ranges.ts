// The transactions of a source's stream that this node does not have: lost in a gap, or discarded. A copy of all rows brings them.

import type { Checkpoint, SequenceRange } from '../host/host.ts'
import { rangesOf, withoutRange, withRange } from './applied-ranges.ts'

/** Transactions that are lost, by their running numbers, inclusive. */
export type MissingRange = { epoch: string; from: number; to: number }
export type MissingRanges = NonNullable<Checkpoint['missing']>

/** The end of a range whose last transaction is not known. */
export const UNKNOWN_END = Number.MAX_SAFE_INTEGER
/** Bounds: ranges of each epoch, and epochs of a source. */
const MAX_RANGES = 128
const MAX_EPOCHS = 8

/** With these ranges. Of too many, the oldest are joined: what is between them then counts as missing too. */
export function withMissing(missing: MissingRanges | undefined, added: readonly MissingRange[]) {
  let result = missing
  for (const { epoch, from, to } of added) {
    if (to < from) continue
    const { [epoch]: ranges, ...others } = withRange(result, epoch, from, to)
    const epochs = Object.entries(others).slice(-(MAX_EPOCHS - 1))
    result = { ...Object.fromEntries(epochs), [epoch]: joinOldest(ranges!) }
  }
  return result
}

function joinOldest(ranges: SequenceRange[]): SequenceRange[] {
  const excess = ranges.length - MAX_RANGES
  if (excess <= 0) return ranges
  return [[ranges[0]![0], ranges[excess]![1]], ...ranges.slice(excess + 1)]
}

/** The transactions of a node that the checkpoint of its table has passed: of the present epoch all, of earlier ones those that it names. */
export function passedRanges(node: string, { epoch, index = 0, applied = {} }: Checkpoint): MissingRange[] {
  const earlier = Object.entries((Object.hasOwn(applied, node) && applied[node]) || {}).flatMap(([each, ranges]) =>
    each === epoch ? [] : ranges.map(([from, to]) => ({ epoch: each, from, to })),
  )
  return [...earlier, { epoch, from: 1, to: index }]
}

/** These transactions arrived after all. */
export const withoutMissing = (
  missing: MissingRanges | undefined,
  { epoch, from, to }: MissingRange,
): MissingRanges | undefined => (rangesOf(missing, epoch).length > 0 ? withoutRange(missing, epoch, from, to) : missing)
