// The applied transactions of each origin, as ranges of running numbers, so that a transaction that arrives twice is applied once.
//
// When the stream and the database of an origin are restored together from an older copy, it uses running numbers of its epoch a second
// time, and does not know it. So a number alone does not name a transaction. Each range has the newest timestamp of its transactions: one
// that arrives again is not newer, and one that was committed after the restore is, because timestamps never decrease.

import type { AppliedRange, Checkpoint, SequenceRange, Timestamp, VoidedRange } from '../host/host.ts'
import { isVoided } from '../host/merge-row.ts'

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

const rangeFrom = (from: number, to: number, newest: Timestamp | undefined): AppliedRange =>
  newest === undefined ? [from, to] : [from, to, newest]

const newer = (one: Timestamp | undefined, other: Timestamp | undefined): Timestamp | undefined =>
  one === undefined || (other !== undefined && other > one) ? other : one

/** A sorted copy with `from..to` added; adjacent and overlapping ranges are joined. */
export const addRange = (ranges: readonly SequenceRange[], from: number, to: number): SequenceRange[] =>
  joinRange(ranges, from, to, undefined) as SequenceRange[]

function joinRange(
  ranges: readonly AppliedRange[],
  from: number,
  to: number,
  newest: Timestamp | undefined,
): AppliedRange[] {
  const last = ranges.at(-1)
  // The usual case: the next number.
  if (last && from >= last[0] && from <= last[1] + 1)
    return [...ranges.slice(0, -1), rangeFrom(last[0], Math.max(last[1], to), newer(newest, last[2]))]
  let joined = rangeFrom(from, to, newest)
  const before = ranges.filter((range) => range[1] < from - 1)
  const after = ranges.filter((range) => range[0] > to + 1)
  for (const [start, end, ofRange] of ranges.slice(before.length, ranges.length - after.length))
    joined = rangeFrom(Math.min(joined[0], start), Math.max(joined[1], end), newer(joined[2], ofRange))
  return [...before, joined, ...after]
}

/**
 * Without the numbers after `last` whose transactions are all older than `newest`, the timestamp of a transaction at or before `last`: the
 * origin has lost them, and uses their numbers again.
 */
const withoutLost = (ranges: readonly AppliedRange[], last: number, newest: Timestamp): readonly AppliedRange[] =>
  (ranges.at(-1)?.[1] ?? 0) > last
    ? ranges.flatMap(([from, to, ofRange]): AppliedRange[] => {
        const isLost = to > last && isNewer(newest, ofRange)
        if (!isLost) return [rangeFrom(from, to, ofRange)]
        return from <= last ? [rangeFrom(from, last, ofRange)] : []
      })
    : ranges

/**
 * True for a transaction that was committed after `newest`, that of the range with its number: the number is that of another one, which the
 * origin has lost. False when either is not known.
 */
export const isNewer = (timestamp: Timestamp | undefined, newest: Timestamp | undefined): boolean =>
  timestamp !== undefined && newest !== undefined && timestamp > newest

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

export const rangesOf = <T>(ranges: Readonly<Record<string, readonly T[]>> | undefined, epoch: string): readonly T[] =>
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

/** The range with this number. Binary search: ranges are sorted. */
function rangeWith(ranges: readonly AppliedRange[], number: number): AppliedRange | undefined {
  let low = 0
  let high = ranges.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const range = ranges[middle]!
    if (number < range[0]) high = middle - 1
    else if (number > range[1]) low = middle + 1
    else return range
  }
  return undefined
}

export const inRanges = (ranges: readonly AppliedRange[], number: number): boolean =>
  rangeWith(ranges, number) !== undefined

/** A transaction by its running number and timestamp. */
function hasTransaction(ranges: readonly AppliedRange[], number: number, timestamp: Timestamp | undefined): boolean {
  const range = rangeWith(ranges, number)
  return range !== undefined && !isNewer(timestamp, range[2])
}

/** `timestamp`: that of the transaction; undefined if it is not known. */
export const wasApplied = (
  applied: AppliedRanges | undefined,
  origin: string,
  epoch: string,
  number: number,
  timestamp?: Timestamp,
): boolean => hasTransaction(rangesOf(ownProperty(applied, origin), epoch), number, timestamp)

/** The newest timestamp in the range with this number. */
export const newestAt = (
  applied: AppliedRanges | undefined,
  origin: string,
  epoch: string,
  number: number,
): Timestamp | undefined => rangeWith(rangesOf(ownProperty(applied, origin), epoch), number)?.[2]

/** Consecutive numbers, the newest timestamp among them, and the ranges of their origin and epoch before them. */
type Run = {
  origin: string
  epoch: string
  from: number
  to: number
  newest: Timestamp | undefined
  ranges: readonly AppliedRange[]
}

/** Adds the transactions of a batch to `applied`. Consecutive numbers are joined to a run first, which saves a copy for each. */
export class AppliedRangesBuilder {
  #applied: AppliedRanges | undefined
  #run: Run | undefined

  constructor(applied: AppliedRanges | undefined) {
    this.#applied = applied
  }

  /** `newest`: the newest of their timestamps, as far as these are known. */
  add(origin: string, epoch: string, from: number, to: number = from, newest?: Timestamp): void {
    const run = this.#run
    if (run && run.origin === origin && run.epoch === epoch && from === run.to + 1) {
      run.to = to
      run.newest = newer(run.newest, newest)
    } else {
      this.#flushRun()
      const ranges = rangesOf(ownProperty(this.#applied, origin), epoch)
      this.#run = { origin, epoch, from, to, newest, ranges }
    }
  }

  /**
   * A transaction of the origin voids these timestamps of the future: as the newest of a range, they would hide that a number is used again.
   * `timestamp`: that of the transaction, which stands for them.
   */
  void(origin: string, voids: VoidedRange, timestamp: Timestamp): void {
    this.#flushRun()
    const ofOrigin = ownProperty(this.#applied, origin)
    if (!ofOrigin) return
    const valid = ([from, to, newest]: AppliedRange): AppliedRange =>
      rangeFrom(from, to, newest !== undefined && isVoided(voids, newest) ? timestamp : newest)
    const epochs = Object.entries(ofOrigin).map(([epoch, ranges]) => [epoch, ranges.map(valid)])
    this.#applied = { ...this.#applied, [origin]: Object.fromEntries(epochs) }
  }

  has(origin: string, epoch: string, number: number, timestamp?: Timestamp): boolean {
    const run = this.#run
    const isOfRun = run !== undefined && run.origin === origin && run.epoch === epoch
    if (isOfRun && number >= run.from && number <= run.to) return !isNewer(timestamp, run.newest)
    const ranges = isOfRun ? run.ranges : rangesOf(ownProperty(this.#applied, origin), epoch)
    return hasTransaction(ranges, number, timestamp)
  }

  /** A new value that shares its unchanged parts with the original. */
  result(): AppliedRanges | undefined {
    this.#flushRun()
    return this.#applied
  }

  #flushRun(): void {
    if (!this.#run) return
    const { origin, epoch, from, to, newest, ranges: before } = this.#run
    const ofOrigin = ownProperty(this.#applied, origin)
    const kept = newest === undefined ? before : withoutLost(before, to, newest)
    const ranges = joinRange(kept, from, to, newest).slice(-MAX_RANGES)
    // The usual case: the epoch is known already.
    this.#applied =
      ofOrigin && Object.hasOwn(ofOrigin, epoch)
        ? { ...this.#applied, [origin]: { ...ofOrigin, [epoch]: ranges } }
        : withLast(this.#applied, origin, withLast(ofOrigin, epoch, ranges, MAX_EPOCHS), MAX_ORIGINS)
    this.#run = undefined
  }
}
