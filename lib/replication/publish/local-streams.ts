// The streams of the local tables on the local leaf: creates each when it is first needed, and checks it after every interruption.

import { clusterError, clusterErrorFrom, reasonOf } from '../../errors.ts'
import type { PublishedPosition } from '../../host/host.ts'
import { type Mesh, MeshError, type TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import type { Logger } from '../../observe/logger.ts'
import { Backoff } from '../../util/backoff.ts'
import { delay } from '../../util/timers.ts'
import type { StreamPosition } from '../stream-metadata.ts'
import type { FrameLimits, StreamPart } from './frame-queue.ts'
import type { MessageFormat } from './message-format.ts'
import type { PurgeOptions } from './purge-plan.ts'
import { StreamWriter } from './stream-writer.ts'
import type { Divergence, StreamEnd } from './stream-writer-options.ts'

export type LocalStreamsOptions = {
  mesh: Mesh
  node: string
  logger: Logger
  /** For one table. */
  frames: FrameLimits
  /** ms for each request to the local leaf. */
  requestTimeout: number
  /** See StreamWriterOptions. */
  formatOf?: ((table: TableName) => MessageFormat) | undefined
  loadPosition(table: TableName): Promise<PublishedPosition | undefined>
  savePosition(table: TableName, position: StreamPosition): Promise<void>
  /** See UnrecordedCommits. */
  unrecordedMark?(table: TableName): Promise<string | undefined>
  /** See `StreamWriterOptions`. Call `onOutboxRead` when the answer may have changed. */
  mayShowMore(queued: number): boolean
  /** A stream has one more message. */
  messageStored?(): void
  /** Appending to a stream was interrupted, and the stream is checked again. */
  interrupted(): void
  diverged?(divergence: TableName & Divergence): void
}

type LocalStream = {
  table: TableName
  writer: StreamWriter
  grownAt: number
  /** A resync in progress. */
  syncing?: Promise<void>
  /** Why the last resync failed. */
  reason: string
  /**
   * The number of stored parts at the last interruption, and the number of interruptions there after the first. Messages ahead of a part
   * are no progress: the part may be refused each time.
   */
  lastInterruption: { storedParts: number; times: number }
  rejectBackoff: Backoff
}

/** ms. */
const RETRY_BACKOFF = { first: 50, max: 1_000 }
/** ms for which heartbeats carry a stream's last sequence after it has grown. */
export const ANNOUNCE_FOR_MS = 30_000

export class LocalStreams {
  readonly #options: LocalStreamsOptions
  readonly #streams = new TableMap<LocalStream>()
  /** Those that grew, or were created, in the last `ANNOUNCE_FOR_MS`; others until the next call of `recentPositions`. */
  readonly #recent = new Set<LocalStream>()
  #closed = false

  constructor(options: LocalStreamsOptions) {
    this.#options = options
  }

  push(table: TableName, part: StreamPart): void {
    this.#streamOf(table).writer.push(part)
  }

  /** Checks every stream again. */
  resume(): void {
    // A resync in progress may be about to give up because the mesh was down: start another one after it.
    for (const stream of this.#streams.values()) void Promise.resolve(stream.syncing).then(() => this.#resync(stream))
  }

  onOutboxRead(): void {
    for (const { writer } of this.#streams.values()) writer.onOutboxRead()
  }

  /** Resolves when the stream exists and its writer is in step with it. Rejects mesh_unavailable. */
  async ensure(table: TableName): Promise<StreamEnd> {
    const stream = this.#streamOf(table)
    if (!stream.writer.ready) {
      const expiry = new AbortController()
      const expired = delay(this.#options.requestTimeout, undefined, { signal: expiry.signal }).catch(() => {})
      await Promise.race([this.#resync(stream), expired])
      expiry.abort()
      if (!stream.writer.ready) throw clusterError('mesh_unavailable', stream.reason)
    }
    return stream.writer.position
  }

  /** The first message of this stream that HarperDB reads; undefined if it reads none. Rejects mesh_unavailable. */
  async firstSingleMessage(table: TableName): Promise<number | undefined> {
    await this.ensure(table)
    return this.#streamOf(table).writer.single
  }

  /** The end of this stream; undefined while it is not known. */
  endOf(table: TableName): StreamEnd | undefined {
    const { writer } = this.#streams.find(table) ?? {}
    return writer && writer.position.epoch !== '' ? writer.position : undefined
  }

  /** The position of the last transaction in this stream. Rejects mesh_unavailable. */
  async lastPosition({ database, table }: TableName): Promise<TableName & { epoch: string; index: number }> {
    const { epoch, index } = await this.ensure({ database, table })
    if (index === undefined) throw clusterError('mesh_unavailable', 'the end of the local stream is not known yet')
    return { database, table, epoch, index }
  }

  /** Purges between two messages, with none in flight. Rejects mesh_unavailable. */
  async purge(table: TableName, options: PurgeOptions): Promise<void> {
    try {
      await this.#streamOf(table).writer.purge(options)
    } catch (error) {
      throw clusterErrorFrom(error, 'mesh_unavailable', reasonOf(error))
    }
  }

  /** See StreamWriter. */
  trim(table: TableName, options: { epoch: string; before: number }): Promise<void> {
    return this.#streamOf(table).writer.trim(options)
  }

  /** Positions of the streams that grew recently, as far as they are known: subscribers count by them what they have lost. */
  recentPositions(): (TableName & StreamPosition)[] {
    const { mesh } = this.#options
    const since = mesh.timers.elapsed() - ANNOUNCE_FOR_MS
    const positions: (TableName & StreamPosition)[] = []
    for (const stream of this.#recent) {
      const { epoch, sequence, index } = stream.writer.position
      if (stream.grownAt < since) this.#recent.delete(stream)
      else if (epoch !== '' && index !== undefined) positions.push({ ...stream.table, epoch, sequence, index })
    }
    return positions
  }

  close(): void {
    this.#closed = true
  }

  #streamOf(table: TableName): LocalStream {
    return this.#streams.get(table, this.#createStream)
  }

  readonly #createStream = (table: TableName): LocalStream => {
    const { mesh, node, frames, requestTimeout, loadPosition, savePosition, mayShowMore } = this.#options
    const format = this.#options.formatOf?.(table)
    const stream: LocalStream = {
      table,
      grownAt: mesh.timers.elapsed(),
      reason: 'the stream was not checked yet',
      lastInterruption: { storedParts: -1, times: 0 },
      rejectBackoff: new Backoff(RETRY_BACKOFF),
      writer: new StreamWriter({
        table,
        node,
        mesh,
        frames,
        requestTimeout,
        ...(format && { format }),
        unrecordedMark: async () => this.#options.unrecordedMark?.(table),
        loadPosition: () => loadPosition(table),
        savePosition: (position) => savePosition(table, position),
        mayShowMore,
        interrupted: (error) => void this.#onInterrupted(stream, error),
        diverged: (divergence) => this.#onDiverged(table, divergence),
        onGrowth: () => {
          stream.grownAt = mesh.timers.elapsed()
          this.#recent.add(stream)
          this.#options.messageStored?.()
        },
      }),
    }
    this.#recent.add(stream)
    void this.#resync(stream)
    return stream
  }

  /** Resyncs after a resync in progress. When the server rejects the same message again, waits first, longer each time. */
  async #onInterrupted(stream: LocalStream, error: MeshError): Promise<void> {
    this.#options.interrupted()
    const { storedParts } = stream.writer
    const times = storedParts === stream.lastInterruption.storedParts ? stream.lastInterruption.times + 1 : 0
    stream.lastInterruption = { storedParts, times }
    await stream.syncing
    if (times === 0) stream.rejectBackoff.reset()
    else {
      this.#options.logger.warn(
        { ...stream.table, reason: error.message, times },
        'local stream rejects appends, retrying',
      )
      await delay(stream.rejectBackoff.next())
    }
    if (!stream.writer.ready) await this.#resync(stream)
  }

  #onDiverged(table: TableName, divergence: Divergence): void {
    const fields = { ...table, ...divergence }
    this.#options.logger.warn(fields, 'the local stream does not match the database, a new epoch begins')
    this.#options.diverged?.(fields)
  }

  /** Retries until it succeeds, one attempt at a time. Gives up while the mesh is down; `resume` starts it again. */
  #resync(stream: LocalStream): Promise<void> {
    stream.syncing ??= this.#resyncUntilReady(stream).finally(() => {
      delete stream.syncing
    })
    return stream.syncing
  }

  async #resyncUntilReady(stream: LocalStream): Promise<void> {
    const { logger, mesh } = this.#options
    const backoff = new Backoff(RETRY_BACKOFF)
    while (!this.#closed) {
      try {
        return await stream.writer.resync()
      } catch (error) {
        stream.reason = reasonOf(error)
        if (mesh.state !== 'connected') return
        const isDisconnected = error instanceof MeshError && error.code === 'disconnected'
        if (!isDisconnected)
          logger.warn({ ...stream.table, reason: stream.reason }, 'cannot check the local stream, retrying')
        await delay(backoff.next())
      }
    }
  }
}
