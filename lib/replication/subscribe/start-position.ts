// Where a subscription without a checkpoint begins to read.

import type { RemoteTable } from '../../host/host.ts'
import { type Entry, type Mesh, MeshError, type RequestOptions, type StreamState } from '../../mesh/mesh.ts'
import { positionAfter, readStreamMetadata, type StreamMetadata } from '../stream-metadata.ts'
import { Frame } from '../wire/frame.ts'
import type { Applier } from './applier.ts'
import type { Position } from './checkpoint-parts.ts'

/** The beginning of a stream that does not exist yet, or of one without epochs. */
export const beginning: Position = { epoch: '', sequence: 0, index: 0 }

/** The requests that find a position. */
export type StartRequests = Pick<Mesh, 'streamState' | 'sequenceAt' | 'messageAt' | 'timers'>

/** `since`: ms since 1970 when the subscription was made; undefined if that is not known. */
export type StartOptions = {
  source: RemoteTable
  mesh: StartRequests
  applier: Applier
  since: number | undefined
  request: RequestOptions
}

/**
 * A node that was renamed offers under its new name what it offered before: reading continues where it stopped under the old
 * name. Otherwise it begins with the first message stored since the subscription was made, so that a remote node which was not
 * reached, or refused, loses nothing by that. When that time is not known, it begins at the end of the stream. Rejects as the mesh.
 */
export async function startPosition(options: StartOptions, state: StreamState): Promise<Position> {
  const { source, mesh, since, request } = options
  const metadata = readStreamMetadata(state.description)
  const continued = await positionUnderOldName(options, metadata)
  if (continued) return continued
  const last = state.lastSequence
  const first =
    since === undefined ? last + 1 : await mesh.sequenceAt(source, Math.min(since, mesh.timers.now()), request)
  return withIndex(positionAfter(metadata, Math.min(first - 1, last)), options)
}

/** Where a requested subscription begins: at `startTime`, if there is one. Rejects as the mesh. */
export async function requestedPosition(options: StartOptions, startTime: string | undefined): Promise<Position> {
  const { source, mesh, request } = options
  const state = await mesh.streamState(source, request)
  if (!state) return { ...beginning, ...(startTime === undefined ? {} : { startTime }) }
  if (startTime === undefined) return startPosition(options, state)
  const last = state.lastSequence
  const first = await mesh.sequenceAt(source, Math.min(Date.parse(startTime), mesh.timers.now()), request)
  const after = positionAfter(readStreamMetadata(state.description), Math.min(first - 1, last))
  const position = await withIndex(after, options)
  return { ...position, startTime, replayUntil: last }
}

/** The position before the first message that the stream has, with its index if that can be read. Rejects as the mesh. */
export async function positionBeforeFirst(
  { source, mesh, requestTimeout: timeout }: Pick<StartOptions, 'source' | 'mesh'> & { requestTimeout: number },
  metadata: StreamMetadata,
  { firstSequence, lastSequence }: StreamState,
  signal: AbortSignal,
): Promise<Position> {
  // An empty stream may have the first sequence 0.
  const position = positionAfter(metadata, Math.min(Math.max(firstSequence - 1, 0), lastSequence))
  if (position.index !== undefined || firstSequence > lastSequence) return position
  const entry = await mesh.messageAt(source, firstSequence, { timeout, signal })
  const { epoch, first, fault } = entry ? Frame.read(entry) : {}
  return fault === undefined && epoch === position.epoch && first !== undefined
    ? { ...position, index: first - 1 }
    : position
}

/** With the index that the message at the position tells, if the stream still has it. The position of a quiet stream is known by that. */
async function withIndex(position: Position, { source, mesh, request }: StartOptions): Promise<Position> {
  const { epoch, sequence, index } = position
  if (index !== undefined) return position
  const entry = await mesh.messageAt(source, sequence, request)
  const { epoch: read, last, fault } = entry ? readable(entry) : {}
  return read === epoch && fault === undefined && last !== undefined ? { ...position, index: last } : position
}

/** A message of a later version is behind the beginning, and does not matter. */
function readable(entry: Entry): Partial<Frame> {
  try {
    return Frame.read(entry)
  } catch {
    return {}
  }
}

/**
 * Epochs are random: a stream that has an epoch which was read from another node is the stream of that node, or its successor. A copy
 * of a node has such a stream too, but then the other node still answers.
 */
async function positionUnderOldName(
  { source, mesh, applier, request }: StartOptions,
  { epochs }: StreamMetadata,
): Promise<Position | undefined> {
  for (const [node, { epoch, sequence, index, partial, lastId, unverified }] of applier.checkpointsOfOthers(
    source.node,
  )) {
    const shared = epoch === '' ? undefined : epochs.find((each) => each.epoch === epoch)
    if (!shared || (await hasStream({ ...source, node }, mesh, request))) continue
    // An ended epoch has nothing beyond its end; a copy of the node may have read further than this node had written.
    const { last, lastIndex } = shared
    if (last !== undefined && last < sequence)
      return { epoch, sequence: last, ...(lastIndex !== undefined && { index: lastIndex }) }
    const id = {
      ...(partial && { partial }),
      ...(lastId !== undefined && { lastId }),
      ...(unverified && { unverified }),
    }
    return { epoch, sequence, ...(index !== undefined && { index }), ...id }
  }
  return undefined
}

async function hasStream(source: RemoteTable, mesh: StartRequests, request: RequestOptions): Promise<boolean> {
  try {
    return (await mesh.streamState(source, request)) !== undefined
  } catch (error) {
    if (error instanceof MeshError && (error.code === 'aborted' || error.code === 'disconnected')) throw error
    return false
  }
}
