// What the owner of a stream tells in its description: its incarnations, and what was purged on purpose. From that a
// subscriber sees exactly what it can no longer get, and why.

import type { GapReason } from '../events/events.ts'
import type { SequenceRange } from '../host/host.ts'
import type { TableName } from '../mesh/mesh.ts'
import { addRange } from './applied-ranges.ts'

/** An incarnation of a stream: it began at sequence `from`; `last`, of one that is over, was its highest acknowledged sequence. */
export type EpochRange = { epoch: string; from: number; last?: number }

/** `epochs`, oldest first; the last one is going on. `purged`: what `purge_stream` removed. */
export type StreamMetadata = { epochs: EpochRange[]; purged: SequenceRange[] }

/** A description takes 4 KB at most. */
const MAX_EPOCHS = 8
const MAX_PURGED = 16

export const formatStreamMetadata = ({ database, table }: TableName, { epochs, purged }: StreamMetadata): string =>
  [
    `${database}.${table}`,
    ...epochs
      .slice(-MAX_EPOCHS)
      .map(({ epoch, from, last }) => `epoch=${epoch}@${from}${last === undefined ? '' : `..${last}`}`),
    ...purged.slice(-MAX_PURGED).map(([from, to]) => `purged=${from}..${to}`),
  ].join(' ')

/** Nothing is told when the stream's writer is not of our kind. */
export const parseStreamMetadata = (description: string): StreamMetadata => ({
  epochs: [...description.matchAll(/\bepoch=(\w+)@(\d+)(?:\.\.(\d+))?/g)].map(([, epoch = '', from, last]) => ({
    epoch,
    from: Number(from),
    ...(last === undefined ? {} : { last: Number(last) }),
  })),
  purged: [...description.matchAll(/\bpurged=(\d+)\.\.(\d+)/g)].map(([, from, to]) => [Number(from), Number(to)]),
})

/** The epoch in which the message behind `sequence` was or will be stored; '' when there are no epochs. */
export const epochAfter = ({ epochs }: StreamMetadata, sequence: number): string =>
  epochs.findLast(({ from }) => from <= sequence + 1)?.epoch ?? epochs[0]?.epoch ?? ''

/** The label once `from` to `to` are purged too. */
export const withPurge = (metadata: StreamMetadata, from: number, to: number): StreamMetadata =>
  to < from ? metadata : { ...metadata, purged: addRange(metadata.purged, from, to) }

/**
 * Why the messages `from` to `to` are gone, in ranges without holes: what was purged on purpose, and what retention took,
 * which takes from the front only.
 */
export function classifyGap(
  { epochs, purged }: StreamMetadata,
  from: number,
  to: number,
  firstSequence: number,
): { from: number; to: number; reason: GapReason }[] {
  const defaultReason = epochs.length > 0 && to < firstSequence ? 'expired' : 'purged'
  const parts: { from: number; to: number; reason: GapReason }[] = []
  const add = (from: number, to: number, reason: GapReason) => {
    const last = parts.at(-1)
    if (from > to) return
    if (last?.reason === reason) last.to = to
    else parts.push({ from, to, reason })
  }
  let next = from
  for (const [start, end] of purged) {
    if (end < next || start > to) continue
    add(next, start - 1, defaultReason)
    add(Math.max(start, next), Math.min(end, to), 'purged')
    next = end + 1
  }
  add(next, to, defaultReason)
  return parts
}
