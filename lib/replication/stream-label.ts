// What the owner of a stream tells in its description: its incarnations, and what was purged on purpose. From that a
// subscriber sees exactly what it can no longer get, and why.

import type { GapReason } from '../events.ts'
import type { Range } from '../host.ts'
import type { TableName } from '../mesh/mesh.ts'
import { addRange } from './seen.ts'

/** An incarnation of a stream: it began at sequence `from`; `last`, of one that is over, was its highest acknowledged sequence. */
export type Incarnation = { epoch: string; from: number; last?: number }

/** `incarnations`, oldest first; the last one is going on. `purged`: what `purge_stream` removed. */
export type StreamLabel = { incarnations: Incarnation[]; purged: Range[] }

/** A description takes 4 KB at most. */
const MAX_INCARNATIONS = 8
const MAX_PURGED = 16

export const formatLabel = ({ database, table }: TableName, { incarnations, purged }: StreamLabel): string =>
  [
    `${database}.${table}`,
    ...incarnations
      .slice(-MAX_INCARNATIONS)
      .map(({ epoch, from, last }) => `epoch=${epoch}@${from}${last === undefined ? '' : `..${last}`}`),
    ...purged.slice(-MAX_PURGED).map(([from, to]) => `purged=${from}..${to}`),
  ].join(' ')

/** Nothing is told when the stream's writer is not of our kind. */
export const parseLabel = (description: string): StreamLabel => ({
  incarnations: [...description.matchAll(/\bepoch=(\w+)@(\d+)(?:\.\.(\d+))?/g)].map(([, epoch = '', from, last]) => ({
    epoch,
    from: Number(from),
    ...(last === undefined ? {} : { last: Number(last) }),
  })),
  purged: [...description.matchAll(/\bpurged=(\d+)\.\.(\d+)/g)].map(([, from, to]) => [Number(from), Number(to)]),
})

/** The epoch in which the message behind `sequence` was or will be stored; '' when there are no epochs. */
export const epochBehind = ({ incarnations }: StreamLabel, sequence: number): string =>
  incarnations.findLast(({ from }) => from <= sequence + 1)?.epoch ?? incarnations[0]?.epoch ?? ''

/** The label once `from` to `to` are purged too. */
export const withPurge = (label: StreamLabel, from: number, to: number): StreamLabel =>
  to < from ? label : { ...label, purged: addRange(label.purged, from, to) }

/**
 * Why the messages `from` to `to` are gone, in ranges without holes: what was purged on purpose, and what retention took,
 * which takes from the front only.
 */
export function whyGone(
  { incarnations, purged }: StreamLabel,
  from: number,
  to: number,
  firstSequence: number,
): { from: number; to: number; reason: GapReason }[] {
  const otherwise = incarnations.length > 0 && to < firstSequence ? 'expired' : 'purged'
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
    add(next, start - 1, otherwise)
    add(Math.max(start, next), Math.min(end, to), 'purged')
    next = end + 1
  }
  add(next, to, otherwise)
  return parts
}
