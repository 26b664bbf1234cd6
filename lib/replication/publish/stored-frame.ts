// Messages of a local stream as its writer sees them, and positions of transactions in them.

import type { Mesh, RemoteTable } from '../../mesh/mesh.ts'
import type { StreamPosition } from '../stream-metadata.ts'
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
