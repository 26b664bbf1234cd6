// The description of a stream, written by its owner: the epochs of the stream, and the ranges that were purged on purpose. From it
// a subscriber computes which messages are gone, and why.

import type { GapReason } from '../events/events.ts'
import type { SequenceRange } from '../host/host.ts'
import { MeshError, type TableName } from '../mesh/mesh.ts'
import { addRange } from './applied-ranges.ts'

/**
 * An epoch of a stream begins at sequence `from`. `last` is the highest acknowledged sequence of an epoch that has ended. `unrecorded`:
 * before it began, transactions were committed that are in no stream.
 */
export type EpochRange = { epoch: string; from: number; last?: number; unrecorded?: true }

/**
 * `epochs`: oldest first, the last one is current. `purged`: ranges that `purge_stream` removed. `unrecorded`: the mark of the last
 * unrecorded transactions that an epoch stands for (UnrecordedCommits.markOf).
 */
export type StreamMetadata = { epochs: EpochRange[]; purged: SequenceRange[]; unrecorded?: string | undefined }

/** Limits, because a description has at most 4 KB. */
const MAX_EPOCHS = 8
const MAX_PURGED = 16

export const formatStreamMetadata = (
  { database, table }: TableName,
  { epochs, purged, unrecorded }: StreamMetadata,
): string =>
  [
    `${database}.${table}`,
    ...epochs
      .slice(-MAX_EPOCHS)
      .map(
        ({ epoch, from, last, unrecorded }) =>
          `epoch=${epoch}@${from}${last === undefined ? '' : `..${last}`}${unrecorded ? '!' : ''}`,
      ),
    ...purged.slice(-MAX_PURGED).map(([from, to]) => `purged=${from}..${to}`),
    ...(unrecorded === undefined ? [] : [`unrecorded=${unrecorded}`]),
  ].join(' ')

/** Both lists are empty when HarperDB writes the stream. */
export function parseStreamMetadata(description: string): StreamMetadata {
  const epochs = [...description.matchAll(/\bepoch=(\w+)@(\d+)(?:\.\.(\d+))?(!?)/g)]
  const unrecorded = /\bunrecorded=(\w+)/.exec(description)?.[1]
  return {
    epochs: epochs.map(([, epoch = '', from, last, mark]) => ({
      epoch,
      from: Number(from),
      ...(last !== undefined && { last: Number(last) }),
      ...(mark === '!' && { unrecorded: true }),
    })),
    purged: [...description.matchAll(/\bpurged=(\d+)\.\.(\d+)/g)].map(([, from, to]) => [Number(from), Number(to)]),
    ...(unrecorded !== undefined && { unrecorded }),
  }
}

/** nats-server stores 4 KB. Other implementations of the mesh may store more. */
const MAX_DESCRIPTION_LENGTH = 16_384

/**
 * The description of a remote node's stream. Rejects one that no writer produces: a subscriber moves from epoch to epoch, so a
 * repeated epoch would never end. Epochs need not be sorted by `from`: a store that kept a description but lost its messages
 * begins the next epoch at 1 again. Throws a MeshError.
 */
export function readStreamMetadata(description: string): StreamMetadata {
  const reject = (reason: string) => new MeshError('rejected', `the description of the stream is invalid: ${reason}`)
  if (description.length > MAX_DESCRIPTION_LENGTH) throw reject(`it has ${description.length} characters`)
  const metadata = parseStreamMetadata(description)
  const { epochs, purged } = metadata
  const names = new Set<string>()
  for (const { epoch } of epochs) {
    if (names.has(epoch)) throw reject(`it repeats epoch '${epoch}'`)
    names.add(epoch)
  }
  const numbers = [...epochs.flatMap(({ from, last = 0 }) => [from, last]), ...purged.flat()]
  const unsafe = numbers.find((each) => !Number.isSafeInteger(each))
  if (unsafe !== undefined) throw reject(`${unsafe} is not a sequence`)
  const reversed = purged.find(([from, to]) => from > to)
  if (reversed) throw reject(`it has a purged range from ${reversed[0]} to ${reversed[1]}`)
  return metadata
}

/** The epoch of the message that follows `sequence`; '' when there are no epochs. */
export const epochAfter = ({ epochs }: StreamMetadata, sequence: number): string =>
  epochs.findLast(({ from }) => from <= sequence + 1)?.epoch ?? epochs[0]?.epoch ?? ''

/**
 * Ends every epoch of a stream whose last sequence is `last`. `known`, the writer's position, is included even when its stream is gone.
 * An epoch that has ended keeps its end: the position of a restored database is an older one.
 */
export function endEpochs(
  epochs: EpochRange[],
  known: { epoch: string; sequence: number } | undefined,
  last: number,
): EpochRange[] {
  const ended = epochs.map((each) =>
    each.epoch === known?.epoch
      ? { ...each, last: Math.max(each.last ?? 0, known.sequence) }
      : { ...each, last: each.last ?? last },
  )
  if (!known || ended.some(({ epoch }) => epoch === known.epoch)) return ended
  return [{ epoch: known.epoch, from: 0, last: known.sequence }, ...ended]
}

/** With the range `from` to `to` added to the purged ranges. */
export const withPurge = (metadata: StreamMetadata, from: number, to: number): StreamMetadata =>
  to < from ? metadata : { ...metadata, purged: addRange(metadata.purged, from, to) }

/**
 * Why the messages `from` to `to` are gone, as ranges without holes: purged on purpose, or expired. Retention removes only the
 * oldest messages.
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
