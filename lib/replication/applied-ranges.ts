// Which transactions of which origins were applied, as ranges of sequences: what arrives twice, by whatever path, is known.

import type { Checkpoint, SequenceRange } from '../host/host.ts'

export type AppliedRanges = NonNullable<Checkpoint['applied']>

/**
 * Most ranges kept of one origin's epoch. The oldest are dropped: what then arrives again by another path is applied again,
 * which last-writer-wins makes harmless.
 */
const MAX_RANGES = 512
/** The same for epochs of an origin, and for origins: nodes that are made up must not fill the database. */
const MAX_EPOCHS = 8
const MAX_ORIGINS = 256

/** Names come from other nodes: `constructor` is one like any other. */
const ownProperty = <T>(record: Readonly<Record<string, T>> | undefined, key: string): T | undefined =>
  record && Object.hasOwn(record, key) ? record[key] : undefined

/** With `key` as the last of at most `max`. */
function withLast<T>(record: Readonly<Record<string, T>> | undefined, key: string, value: T, max: number) {
  const others = Object.entries(record ?? {}).filter(([name]) => name !== key)
  return Object.fromEntries([...others.slice(Math.max(0, others.length - max + 1)), [key, value]])
}

/** The ranges with `from..to` added; neighbours and overlaps joined, in order. The given array is not changed. */
export function addRange(ranges: readonly SequenceRange[], from: number, to: number): SequenceRange[] {
  const last = ranges.at(-1)
  // Nearly always the next one.
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

/** The ranges without `sequence`. */
export const removeSequence = (ranges: readonly SequenceRange[], sequence: number): SequenceRange[] =>
  ranges.flatMap(([from, to]): SequenceRange[] => {
    if (sequence < from || sequence > to) return [[from, to]]
    const left: SequenceRange[] = [
      [from, sequence - 1],
      [sequence + 1, to],
    ]
    return left.filter(([start, end]) => start <= end)
  })

type RangesByEpoch = NonNullable<Checkpoint['quarantined']>

export const rangesOf = (ranges: RangesByEpoch | undefined, epoch: string): readonly SequenceRange[] =>
  ownProperty(ranges, epoch) ?? []

export const withSequence = (ranges: RangesByEpoch = {}, epoch: string, sequence: number): RangesByEpoch => ({
  ...ranges,
  [epoch]: addRange(rangesOf(ranges, epoch), sequence, sequence),
})

/** Undefined when nothing is left. */
export function withoutSequence(
  ranges: RangesByEpoch = {},
  epoch: string,
  sequence: number,
): RangesByEpoch | undefined {
  const { [epoch]: _, ...others } = ranges
  const left = removeSequence(rangesOf(ranges, epoch), sequence)
  const result = left.length > 0 ? { ...others, [epoch]: left } : others
  return Object.keys(result).length > 0 ? result : undefined
}

/** By bisection: ranges are in order. */
export function inRanges(ranges: readonly SequenceRange[], sequence: number): boolean {
  let low = 0
  let high = ranges.length - 1
  while (low <= high) {
    const middle = (low + high) >> 1
    const [from, to] = ranges[middle]!
    if (sequence < from) high = middle - 1
    else if (sequence > to) low = middle + 1
    else return true
  }
  return false
}

export const wasApplied = (
  applied: AppliedRanges | undefined,
  origin: string,
  epoch: string,
  sequence: number,
): boolean => inRanges(rangesOf(ownProperty(applied, origin), epoch), sequence)

/** What a batch adds to `applied`: runs of neighbours are joined before they are noted. */
export class AppliedRangesBuilder {
  #applied: AppliedRanges | undefined
  /** With the ranges that were noted before. */
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

  has(origin: string, epoch: string, sequence: number): boolean {
    const run = this.#run
    const isOfRun = run !== undefined && run.origin === origin && run.epoch === epoch
    if (isOfRun && sequence >= run.from && sequence <= run.to) return true
    return inRanges(isOfRun ? run.ranges : rangesOf(ownProperty(this.#applied, origin), epoch), sequence)
  }

  /** A new value; what did not change is shared with the one given. */
  result(): AppliedRanges | undefined {
    this.#flushRun()
    return this.#applied
  }

  #flushRun(): void {
    if (!this.#run) return
    const { origin, epoch, from, to } = this.#run
    const ofOrigin = ownProperty(this.#applied, origin)
    const ranges = addRange(this.#run.ranges, from, to).slice(-MAX_RANGES)
    // Nearly always it is there.
    this.#applied =
      ofOrigin && Object.hasOwn(ofOrigin, epoch)
        ? { ...this.#applied, [origin]: { ...ofOrigin, [epoch]: ranges } }
        : withLast(this.#applied, origin, withLast(ofOrigin, epoch, ranges, MAX_EPOCHS), MAX_ORIGINS)
    this.#run = undefined
  }
}
