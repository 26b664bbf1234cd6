// What the writer of a local stream needs, and what it reports.

import type { PublishedPosition } from '../../host/host.ts'
import type { Mesh, MeshError, TableName } from '../../mesh/mesh.ts'
import type { StreamPosition } from '../stream-metadata.ts'
import type { FrameLimits } from './frame-queue.ts'
import type { MessageFormat } from './message-format.ts'

/**
 * The stream has, or had, the messages `from` to `to` of its epoch, and the outbox does not prove that they are its own: the database
 * is older than the stream, or they were deleted before they were confirmed. `epoch` is the new epoch.
 */
export type Divergence = { epoch: string; from: number; to: number; reason: string }

export type StreamWriterOptions = {
  table: TableName
  /** Name of the local node. */
  node: string
  mesh: Mesh
  /** ms for each request. */
  requestTimeout: number
  frames: FrameLimits
  /** The position that the host stored for this table; undefined when it stored none. */
  loadPosition(): Promise<PublishedPosition | undefined>
  /** The mark of transactions that are in no stream: while it is not in the description, a new epoch begins. */
  unrecordedMark?(): Promise<string | undefined>
  /** How messages are written; a change begins a new epoch. Default: as frames. */
  format?: MessageFormat
  /** Stores where an epoch begins, before any message is appended in it. */
  savePosition(position: StreamPosition): Promise<void>
  /**
   * False when everything is queued that an earlier process may have appended. `queued`: the number of queued parts; the outbox may
   * show no more before some of them are stored.
   */
  mayShowMore(queued: number): boolean
  /** Appending stopped until the next `resync`. */
  interrupted(error: MeshError): void
  /** A new epoch began because the stream does not match the database. */
  diverged?(divergence: Divergence): void
  /** The stream has one more message than was known. */
  onGrowth?(): void
}

/** The last message of the stream, and the index of its last transaction if that is known. */
export type StreamEnd = { epoch: string; sequence: number; index?: number | undefined }
