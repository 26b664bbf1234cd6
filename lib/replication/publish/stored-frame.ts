// Messages of a local stream as its writer sees them, and positions of transactions in them.

import type { Mesh, RemoteTable, StreamState } from '../../mesh/mesh.ts'
import type { EpochRange, StreamPosition } from '../stream-metadata.ts'
import { Frame } from '../wire/frame.ts'

/**
 * The transaction at `index` is stored, and all before it. `sequence`: the last message all of whose transactions are at or before it.
 * `partial`: `index` lies in the message after that.
 */
export type StoredPosition = StreamPosition & { partial?: true }

/** A stored message of the current epoch. `last`: index of its last transaction. */
export type StoredFrame = { epoch: string; sequence: number; last: number }

export const positionIn = ({ epoch, sequence, last }: StoredFrame, index: number): StoredPosition =>
  index === last ? { epoch, sequence, index } : { epoch, sequence: sequence - 1, index, partial: true }

/** The message with this sequence; undefined when the stream does not have it. Rejects as the mesh does, and MessageVersionError. */
export async function readFrame(
  mesh: Mesh,
  source: RemoteTable,
  sequence: number,
  timeout: number,
): Promise<Frame | undefined> {
  const entry = await mesh.messageAt(source, sequence, { timeout })
  return entry && Frame.read(entry)
}

/**
 * The last message of the stream: its epoch, and the index of its last transaction; without them if it cannot be read. `current`: the
 * epoch that the description names. `known`: the confirmed position. Rejects as `readFrame`.
 */
export async function readEnd(
  { mesh, source, requestTimeout }: { mesh: Mesh; source: RemoteTable; requestTimeout: number },
  { firstSequence, lastSequence: sequence }: StreamState,
  current: EpochRange | undefined,
  known: StoredPosition | undefined,
): Promise<{ sequence: number; epoch: string; index?: number }> {
  if (known && known.epoch === current?.epoch && known.sequence === sequence && !known.partial) return known
  if (current && sequence === current.from - 1) return { epoch: current.epoch, sequence, index: 0 }
  if (sequence < firstSequence) return { epoch: '', sequence }
  const frame = await readFrame(mesh, source, sequence, requestTimeout)
  if (frame?.last === undefined || frame.fault !== undefined) return { epoch: '', sequence }
  return { epoch: frame.epoch, sequence, index: frame.last }
}
