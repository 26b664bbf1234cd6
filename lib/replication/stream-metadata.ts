// The description of a stream, written by its owner: the epochs of the stream, and the ranges that were purged on purpose. From it
// a subscriber computes which messages are gone, and why.

import type { GapReason } from '../events/events.ts'
import { MeshError, type TableName } from '../mesh/mesh.ts'

/**
 * Version of stream descriptions, in the word `v=`. A node reads this one and the one before.
 *
 * 1: `<database>.<table> v=1`, then an entry `epoch=<id>@<from>` for each epoch, which once it is over has
 *    `..<last>` or `..<last>/<lastIndex>`, and an entry `purged=<from>..<to>` or
 *    `purged=<from>..<to>/<firstIndex>..<lastIndex>` for each range that was purged. `!` behind an epoch, `unrecorded=<mark>` and
 *    `single=<from>`: see `EpochRange` and `StreamMetadata`.
 * Without a version: a stream of HarperDB, which has no epochs.
 */
export const METADATA_VERSION = 1

/**
 * An epoch of a stream begins at sequence `from`, and its indexes at 1. `last`: the highest acknowledged sequence of an epoch that has
 * ended. `lastIndex`: the highest acknowledged index; absent if it is not known. It may lie in the message after `last`.
 * `unrecorded`: before the epoch began, transactions were committed that are in no stream.
 */
export type EpochRange = { epoch: string; from: number; last?: number; lastIndex?: number; unrecorded?: true }

/** Messages `from` to `to` of one epoch that `purge_stream` removed, and the indexes of their transactions if they are known. */
export type PurgedRange = { from: number; to: number; firstIndex?: number; lastIndex?: number }

/**
 * `epochs`: oldest first, the last one is current. `purged`: sorted, without overlaps. `unrecorded`: the mark of the last unrecorded
 * transactions that an epoch stands for (UnrecordedCommits.markOf). `single`: the messages from this sequence on are single messages, which
 * HarperDB reads; absent while frames are written.
 */
export type StreamMetadata = {
  epochs: EpochRange[]
  purged: PurgedRange[]
  unrecorded?: string | undefined
  single?: number | undefined
}

/** The end of a stream, or the last message that counts: never inside a message. */
export type StreamPosition = { epoch: string; sequence: number; index: number }

/** A later version of enmesh wrote the description. */
export class MetadataVersionError extends MeshError {
  constructor(message: string) {
    super('rejected', message)
  }
}

/** Limits, because a description has at most 4 KB. */
const MAX_EPOCHS = 8
const MAX_PURGED = 16

export const formatStreamMetadata = (
  { database, table }: TableName,
  { epochs, purged, unrecorded, single }: StreamMetadata,
): string =>
  [
    `${database}.${table}`,
    `v=${METADATA_VERSION}`,
    ...epochs.slice(-MAX_EPOCHS).map(formatEpoch),
    ...purged.slice(-MAX_PURGED).map(formatPurged),
    ...(unrecorded === undefined ? [] : [`unrecorded=${unrecorded}`]),
    ...(single === undefined ? [] : [`single=${single}`]),
  ].join(' ')

const formatEpoch = ({ epoch, from, last, lastIndex, unrecorded }: EpochRange): string => {
  const end = last === undefined ? '' : `..${last}`
  return `epoch=${epoch}@${from}${end}${end === '' || lastIndex === undefined ? '' : `/${lastIndex}`}${unrecorded ? '!' : ''}`
}

const formatPurged = ({ from, to, firstIndex, lastIndex }: PurgedRange): string => {
  const indexes = firstIndex === undefined || lastIndex === undefined ? '' : `/${firstIndex}..${lastIndex}`
  return `purged=${from}..${to}${indexes}`
}

/** Both lists are empty when HarperDB writes the stream. Throws MetadataVersionError. */
export function parseStreamMetadata(description: string): StreamMetadata {
  const words = description.split(' ').slice(1)
  const version = words.find((word) => word.startsWith('v='))?.slice(2)
  const metadata: StreamMetadata = { epochs: [], purged: [] }
  if (version === undefined) return metadata
  if (version !== `${METADATA_VERSION}`)
    throw new MetadataVersionError(
      `the description of the stream has version '${version}', this node reads version ${METADATA_VERSION}`,
    )
  for (const word of words) {
    const epoch = /^epoch=(\w+)@(\d+)(?:\.\.(\d+)(?:\/(\d+))?)?(!?)$/.exec(word)
    if (epoch)
      metadata.epochs.push({
        epoch: epoch[1]!,
        from: Number(epoch[2]),
        ...numbers(epoch, 3, 'last', 'lastIndex'),
        ...(epoch[5] === '!' && { unrecorded: true }),
      })
    const purged = /^purged=(\d+)\.\.(\d+)(?:\/(\d+)\.\.(\d+))?$/.exec(word)
    if (purged)
      metadata.purged.push({
        from: Number(purged[1]),
        to: Number(purged[2]),
        ...numbers(purged, 3, 'firstIndex', 'lastIndex'),
      })
  }
  const find = (pattern: RegExp) => words.flatMap((word) => pattern.exec(word)?.[1] ?? [])[0]
  const unrecorded = find(/^unrecorded=(\w+)$/)
  const single = find(/^single=(\d+)$/)
  return {
    ...metadata,
    ...(unrecorded !== undefined && { unrecorded }),
    ...(single !== undefined && { single: Number(single) }),
  }
}

/** False for a stream that HarperDB has created. */
export const isOwnDescription = (description: string): boolean =>
  description.split(' ', 2)[1]?.startsWith('v=') === true

/**
 * From which sequence on the messages are single ones, when an epoch with single messages begins at `from`. HarperDB's own messages, which
 * a stream may begin with, are single ones too; a store that has lost its messages numbers them again.
 */
export const singleFrom = (description: string, { single }: StreamMetadata, from: number): number =>
  isOwnDescription(description) ? Math.min(single ?? from, from) : 1

/** The groups from `first` on, with these names; without those that did not match. */
const numbers = (match: RegExpExecArray, first: number, ...names: string[]): Record<string, number> =>
  Object.fromEntries(
    names.flatMap((name, offset) => {
      const text = match[first + offset]
      return text === undefined ? [] : [[name, Number(text)]]
    }),
  )

/** nats-server stores 4 KB. Other implementations of the mesh may store more. */
const MAX_DESCRIPTION_LENGTH = 16_384

/**
 * The description of a remote node's stream. Rejects one that no writer produces: a subscriber moves from epoch to epoch, so a
 * repeated epoch would never end. Epochs need not be sorted by `from`: a store that kept a description but lost its messages
 * begins the next epoch at 1 again. Throws a MeshError, of which MetadataVersionError is one.
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
  const positions = [
    ...epochs.flatMap(({ from, last = 0, lastIndex = 0 }) => [from, last, lastIndex]),
    ...purged.flatMap(({ from, to, firstIndex = 0, lastIndex = 0 }) => [from, to, firstIndex, lastIndex]),
  ]
  const unsafe = positions.find((each) => !Number.isSafeInteger(each))
  if (unsafe !== undefined) throw reject(`${unsafe} is not a sequence`)
  const reversed = purged.find(({ from, to, firstIndex = 0, lastIndex = 0 }) => from > to || firstIndex > lastIndex)
  if (reversed) throw reject(`it has a purged range from ${reversed.from} to ${reversed.to}`)
  return metadata
}

/** The epoch of the message that follows `sequence`; '' when there are no epochs. */
export const epochAfter = ({ epochs }: StreamMetadata, sequence: number): string =>
  epochs.findLast(({ from }) => from <= sequence + 1)?.epoch ?? epochs[0]?.epoch ?? ''

/** The position after message `sequence`. Without `index` if only a message can tell it. */
export function positionAfter(
  metadata: StreamMetadata,
  sequence: number,
): { epoch: string; sequence: number; index?: number } {
  const epoch = epochAfter(metadata, sequence)
  // Without epochs, the sequence of a message is its index.
  if (epoch === '') return { epoch, sequence, index: sequence }
  const range = metadata.epochs.find((each) => each.epoch === epoch)!
  if (range.from > sequence) return { epoch, sequence, index: 0 }
  // A quiet stream may have no message that tells it.
  const { lastIndex: index } = metadata.purged.find(({ from, to }) => to === sequence && from >= range.from) ?? {}
  return { epoch, sequence, ...(index !== undefined && { index }) }
}

/**
 * Ends every epoch of a stream whose last message is `last`; its index is absent if it cannot be read. `known`, the writer's confirmed
 * position, is included even when its stream is gone. An epoch that has ended keeps its end: the position of a restored database
 * is an older one.
 */
export function endEpochs(
  epochs: EpochRange[],
  known: StreamPosition | undefined,
  last: { epoch?: string; sequence: number; index?: number },
): EpochRange[] {
  const ended = epochs.map((each) => {
    if (each.epoch === known?.epoch && (each.last === undefined || each.last <= known.sequence))
      return endAt(each, known.sequence, Math.max(each.lastIndex ?? 0, known.index))
    if (each.last !== undefined) return each
    return endAt(each, last.sequence, last.epoch === each.epoch ? last.index : undefined)
  })
  if (!known || ended.some(({ epoch }) => epoch === known.epoch)) return ended
  return [{ epoch: known.epoch, from: 0, last: known.sequence, lastIndex: known.index }, ...ended]
}

const endAt = (epoch: EpochRange, last: number, lastIndex: number | undefined): EpochRange => ({
  ...epoch,
  last,
  ...(lastIndex === undefined ? {} : { lastIndex }),
})

/** With a range added to the purged ranges; joined with the one before it when sequences and indexes both continue. */
export function withPurge(metadata: StreamMetadata, added: PurgedRange): StreamMetadata {
  const { from, to } = added
  if (to < from) return metadata
  // The store may have lost its messages and kept the description: then the sequences of the older ranges occur again.
  const before = metadata.purged.filter((range) => range.to < from)
  const after = metadata.purged.filter((range) => range.from > to)
  const last = before.at(-1)
  const isContinued =
    last !== undefined &&
    last.to + 1 === from &&
    (last.lastIndex === undefined ? added.firstIndex === undefined : last.lastIndex + 1 === added.firstIndex)
  const joined = isContinued ? { ...last, to, ...(added.lastIndex && { lastIndex: added.lastIndex }) } : added
  return { ...metadata, purged: [...(isContinued ? before.slice(0, -1) : before), joined, ...after] }
}

/** A message, and a transaction in it if that is known: the first or the last one of a gap. */
export type GapBound = { sequence: number; index?: number | undefined }
export type ClassifiedGap = { from: GapBound; to: GapBound; reason: GapReason }

/**
 * Why what lies between `from` and `to`, both inclusive, is gone, as ranges without holes: purged on purpose, or expired. Retention
 * removes only the oldest messages.
 */
export function classifyGap(
  { epochs, purged }: StreamMetadata,
  from: GapBound,
  to: GapBound,
  firstSequence: number,
): ClassifiedGap[] {
  const defaultReason = epochs.length > 0 && to.sequence < firstSequence ? 'expired' : 'purged'
  const parts: ClassifiedGap[] = []
  const add = (start: GapBound, end: GapBound, reason: GapReason) => {
    const last = parts.at(-1)
    if (start.sequence > end.sequence) return
    if (last?.reason === reason) last.to = end
    else parts.push({ from: start, to: end, reason })
  }
  // The range may be of an earlier stream.
  const within = (index: number | undefined) =>
    index !== undefined && index >= (from.index ?? 1) - 1 && index <= (to.index ?? index) + 1 ? index : undefined
  let next = from
  for (const range of purged) {
    if (range.to < next.sequence || range.from > to.sequence) continue
    const firstIndex = within(range.firstIndex)
    const start = range.from > next.sequence ? { sequence: range.from, index: firstIndex } : next
    if (range.from > next.sequence) add(next, before(start), defaultReason)
    const lastIndex = within(range.lastIndex)
    const end = { sequence: range.to, index: lastIndex }
    const isLast = range.to >= to.sequence
    add(
      start,
      isLast ? { ...to, index: to.index ?? (range.to === to.sequence ? lastIndex : undefined) } : end,
      'purged',
    )
    next = { sequence: end.sequence + 1, index: end.index === undefined ? undefined : end.index + 1 }
  }
  add(next, to, defaultReason)
  return parts
}

const before = ({ sequence, index }: GapBound): GapBound => ({
  sequence: sequence - 1,
  index: index === undefined ? undefined : index - 1,
})
