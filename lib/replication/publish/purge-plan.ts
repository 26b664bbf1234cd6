// Which messages a purge removes. Read from the stream, because only its messages say which transactions they have.

import type { Mesh, RemoteTable, StreamState } from '../../mesh/mesh.ts'
import type { EpochRange, PurgedRange } from '../stream-metadata.ts'
import { readFrame } from './stored-frame.ts'

/** Keeps at least the last `keep` transactions, or the messages from `before` on; nothing without either. */
export type PurgeOptions = { keep?: number; before?: number }

/** Removes the messages before `before`: `ranges` of one epoch each, oldest first. */
export type PurgePlan = { before: number; ranges: PurgedRange[] }

export type PurgedStream = { mesh: Mesh; source: RemoteTable; requestTimeout: number }

/** Rejects as the mesh does, and MessageVersionError. */
export async function planPurge(
  stream: PurgedStream,
  state: StreamState,
  epochs: readonly EpochRange[],
  { keep, before }: PurgeOptions,
): Promise<PurgePlan> {
  const first = Math.max(1, state.firstSequence)
  const last = state.lastSequence
  const kept = keep ? await firstKept(stream, segmentsOf(epochs, first, last), keep) : (before ?? last + 1)
  const end = Math.min(kept, last + 1)
  const ranges: PurgedRange[] = []
  for (const { from, to } of segmentsOf(epochs, first, end - 1)) {
    const oldest = await readFrame(stream.mesh, stream.source, from, stream.requestTimeout)
    const newest = await readFrame(stream.mesh, stream.source, to, stream.requestTimeout)
    const indexes =
      oldest?.first === undefined || newest?.last === undefined
        ? {}
        : { firstIndex: oldest.first, lastIndex: newest.last }
    ranges.unshift({ from, to, ...indexes })
  }
  return { before: end, ranges }
}

/** The messages `first` to `last`, divided by epoch, newest first. A store that lost its messages may have begun at 1 again. */
function segmentsOf(epochs: readonly EpochRange[], first: number, last: number): { from: number; to: number }[] {
  const segments: { from: number; to: number }[] = []
  let to = last
  for (const epoch of [...epochs].reverse()) {
    if (epoch.from > to || epoch.from === 0) continue
    segments.push({ from: Math.max(first, epoch.from), to })
    to = epoch.from - 1
    if (to < first) break
  }
  if (to >= first) segments.push({ from: first, to })
  return segments.filter(({ from, to }) => from <= to)
}

/**
 * The oldest message to keep so that `keep` transactions are kept at least. Of an epoch that is kept whole, all of its transactions count, even
 * those that have expired. Where messages cannot be read, each counts as one transaction: then more are kept.
 */
async function firstKept(
  { mesh, source, requestTimeout }: PurgedStream,
  segments: readonly { from: number; to: number }[],
  keep: number,
): Promise<number> {
  let wanted = keep
  let oldest = segments.at(0)?.to ?? 0
  for (const { from, to } of segments) {
    const last = (await readFrame(mesh, source, to, requestTimeout))?.last ?? to - from + 1
    if (wanted > last) {
      wanted -= last
      oldest = from
      if (wanted > 0) continue
    }
    const isKept = async (sequence: number) => {
      const frame = await readFrame(mesh, source, sequence, requestTimeout)
      return frame?.last === undefined || frame.last > last - wanted
    }
    return lowest(from, to, isKept)
  }
  return oldest
}

/** The lowest number from `low` to `high` for which `test` resolves with true; it does for `high`, and for all after the lowest. */
async function lowest(low: number, high: number, test: (number: number) => Promise<boolean>): Promise<number> {
  let [from, to] = [low, high]
  while (from < to) {
    const middle = Math.floor((from + to) / 2)
    if (await test(middle)) to = middle
    else from = middle + 1
  }
  return from
}
