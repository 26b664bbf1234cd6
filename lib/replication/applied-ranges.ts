// The applied transactions of each origin, as ranges of running numbers, so that a transaction that arrives twice is applied once.

import type { Checkpoint, SequenceRange } from '../host/host.ts'

export type AppliedRanges = NonNullable<Checkpoint['applied']>

/**
 * Ranges kept for each epoch of an origin; the oldest are dropped. A dropped transaction that arrives again by another path is
 * applied again, which is harmless because the last writer wins.
 */
const MAX_RANGES = 512
/** Epochs kept for each origin, and origins: forged node names must not fill the database. */
const MAX_EPOCHS = 8
const MAX_ORIGINS = 256

/** Names come from remote nodes and may be `constructor` or the like. */
const ownProperty = <T>(record: Readonly<Record<string, T>> | undefined, key: string): T | undefined =>
  record && Object.hasOwn(record, key) ? record[key] : undefined

/** A copy with `key` as its last entry, and at most `max` entries. */
function withLast<T>(record: Readonly<Record<string, T>> | undefined, key: string, value: T, max: number) {
  const others = Object.entries(record ?? {}).filter(([name]) => name !== key)
  return Object.fromEntries([...others.slice(Math.max(0, others.length - max + 1)), [key, value]])
}

/** A sorted copy with `from..to` added; adjacent and overlapping ranges are joined. */
export function addRange(ranges: readonly SequenceRange[], from: number, to: number): SequenceRange[] {
  const last = ranges.at(-1)
  // The usual case: the next number.
  if (last && from >= last[0] && from <= last[1] + 1) return [...ranges.slice(0, -1), [last[0], Math.max(last[1], to)]]
  const joined: SequenceRange = [from, to]
  const before = ranges.filter((range) => range[1] < from - 1)
  const after = ranges.filter((range) => range[0] > to + 1)
  for (const [start, end] of ranges.slice(before.length, ranges.length - after.length)) {
    joined[0] = Math.min(joined[0], start)
    joined[1] = Math.max(joined[1], end)
  }
  return [...before, joined, ...after]
}

const removeRange = (ranges: readonly SequenceRange[], first: number, last: number): SequenceRange[] =>
  ranges.flatMap(([from, to]): SequenceRange[] => {
    if (last < from || first > to) return [[from, to]]
    const left: SequenceRange[] = [
      [from, first - 1],
      [last + 1, to],
    ]
    return left.filter(([start, end]) => start <= end)
  })

type RangesByEpoch = NonNullable<Checkpoint['quarantined']>

export const rangesOf = (ranges: RangesByEpoch | undefined, epoch: string): readonly SequenceRange[] =>
  ownProperty(ranges, epoch) ?? []

export const withRange = (ranges: RangesByEpoch = {}, epoch: string, from: number, to: number): RangesByEpoch => ({
  ...ranges,
  [epoch]: addRange(rangesOf(ranges, epoch), from, to),
})

/** Undefined when no range is left. */
export function withoutRange(
  ranges: RangesByEpoch = {},
  epoch: string,
  from: number,
  to: number,
): RangesByEpoch | undefined {
  const { [epoch]: _, ...others } = ranges
  const left = removeRange(rangesOf(ranges, epoch), from, to)
  const result = left.length > 0 ? { ...others, [epoch]: left } : others
  return Object.keys(result).length > 0 ? result : undefined
}

/** Binary search: ranges are sorted. */
export function inRanges(ranges: readonly SequenceRange[], number: number): boolean {
  let low = 0
  let high = ranges.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const [from, to] = ranges[middle]!
    if (number < from) high = middle - 1
    else if (number > to) low = middle + 1
    else return true
  }
  return false
}

export const wasApplied = (
  applied: AppliedRanges | undefined,
  origin: string,
  epoch: string,
  number: number,
): boolean => inRanges(rangesOf(ownProperty(applied, origin), epoch), number)

/** Adds the transactions of a batch to `applied`. Consecutive numbers are joined to a run first, which saves a copy for each. */
export class AppliedRangesBuilder {
  #applied: AppliedRanges | undefined
  /** The current run, and the ranges of its origin and epoch before it. */
  #run: { origin: string; epoch: string; from: number; to: number; ranges: readonly SequenceRange[] } | undefined

  constructor(applied: AppliedRanges | undefined) {
    this.#applied = applied
  }

  add(origin: string, epoch: string, from: number, to: number = from): void {
    const run = this.#run
    if (run && run.origin === origin && run.epoch === epoch && from === run.to + 1) run.to = to
    else {
      this.#flushRun()
      this.#run = { origin, epoch, from, to, ranges: rangesOf(ownProperty(this.#applied, origin), epoch) }
    }
  }

  has(origin: string, epoch: string, number: number): boolean {
    const run = this.#run
    const isOfRun = run !== undefined && run.origin === origin && run.epoch === epoch
    if (isOfRun && number >= run.from && number <= run.to) return true
    return inRanges(isOfRun ? run.ranges : rangesOf(ownProperty(this.#applied, origin), epoch), number)
  }

  /** A new value that shares its unchanged parts with the original. */
  result(): AppliedRanges | undefined {
    this.#flushRun()
    return this.#applied
  }

  #flushRun(): void {
    if (!this.#run) return
    const { origin, epoch, from, to } = this.#run
    const ofOrigin = ownProperty(this.#applied, origin)
    const ranges = addRange(this.#run.ranges, from, to).slice(-MAX_RANGES)
    // The usual case: the epoch is known already.
    this.#applied =
      ofOrigin && Object.hasOwn(ofOrigin, epoch)
        ? { ...this.#applied, [origin]: { ...ofOrigin, [epoch]: ranges } }
        : withLast(this.#applied, origin, withLast(ofOrigin, epoch, ranges, MAX_EPOCHS), MAX_ORIGINS)
    this.#run = undefined
  }
}
