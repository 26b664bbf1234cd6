// The streams of our own tables on our leaf: each made when first needed, looked at after every interruption.

import { setTimeout as delay } from 'node:timers/promises'
import { clusterError, clusterErrorFrom, reasonOf } from '../../errors.ts'
import type { PublishedPosition } from '../../host/host.ts'
import { type Mesh, MeshError, type TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import type { Logger } from '../../observe/logger.ts'
import { type StreamPart, type StreamPosition, StreamWriter } from './stream-writer.ts'

export type LocalStreamsOptions = {
  mesh: Mesh
  node: string
  logger: Logger
  /** Most messages in flight for one table. */
  window: number
  /** ms for each request to our leaf. */
  requestTimeout: number
  loadPosition(table: TableName): Promise<PublishedPosition | undefined>
  savePosition(table: TableName, position: StreamPosition): Promise<void>
  /** Sending to a stream was interrupted; it is looked at again. */
  interrupted(): void
}

type LocalStream = {
  table: TableName
  writer: StreamWriter
  grownAt: number
  /** A look under way. */
  syncing?: Promise<void>
  /** Why the last look failed. */
  reason: string
  /** Where the stream was when sending was interrupted last, and how often it has not moved since. */
  lastInterruption: { at: number; times: number }
}

const RETRY_DELAY_MS = { min: 50, max: 1_000 }
/** ms for which a stream's last sequence is announced after it has grown. */
const ANNOUNCE_FOR_MS = 30_000

export class LocalStreams {
  readonly #options: LocalStreamsOptions
  readonly #streams = new TableMap<LocalStream>()
  #closed = false

  constructor(options: LocalStreamsOptions) {
    this.#options = options
  }

  push(table: TableName, part: StreamPart): void {
    this.#streamOf(table).writer.push(part)
  }

  /** Everything is looked at again. */
  resume(): void {
    // Behind a look that is just giving up because the mesh was down.
    for (const stream of this.#streams.values()) void Promise.resolve(stream.syncing).then(() => this.#resync(stream))
  }

  /** The stream exists and its writer is in step with it. Rejects mesh_unavailable. */
  async ensure(table: TableName): Promise<StreamPosition> {
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

  /** Between two messages, with none in flight. Rejects mesh_unavailable. */
  async purge(table: TableName, options: { keep?: number; before?: number }): Promise<void> {
    try {
      await this.#streamOf(table).writer.purge(options)
    } catch (error) {
      throw clusterErrorFrom(error, 'mesh_unavailable', reasonOf(error))
    }
  }

  /** Where those are that grew lately. */
  recentPositions(): (TableName & StreamPosition)[] {
    const { mesh } = this.#options
    const since = mesh.timers.elapsed() - ANNOUNCE_FOR_MS
    return [...this.#streams.values()]
      .filter(({ writer, grownAt }) => writer.position.epoch !== '' && grownAt >= since)
      .map(({ table, writer }) => ({ ...table, ...writer.position }))
  }

  close(): void {
    this.#closed = true
  }

  #streamOf(table: TableName): LocalStream {
    return this.#streams.get(table, this.#createStream)
  }

  readonly #createStream = (table: TableName): LocalStream => {
    const { mesh, node, window, requestTimeout, loadPosition, savePosition } = this.#options
    const stream: LocalStream = {
      table,
      grownAt: mesh.timers.elapsed(),
      reason: 'not yet looked at',
      lastInterruption: { at: -1, times: 0 },
      writer: new StreamWriter({
        table,
        node,
        mesh,
        window,
        requestTimeout,
        loadPosition: () => loadPosition(table),
        savePosition: (position) => savePosition(table, position),
        interrupted: (error) => void this.#onInterrupted(stream, error),
        onGrowth: () => {
          stream.grownAt = mesh.timers.elapsed()
        },
      }),
    }
    void this.#resync(stream)
    return stream
  }

  /** Looks again behind a look under way; and later each time when the server refuses the same message again. */
  async #onInterrupted(stream: LocalStream, error: MeshError): Promise<void> {
    this.#options.interrupted()
    const at = stream.writer.position.sequence
    const times = at === stream.lastInterruption.at ? stream.lastInterruption.times + 1 : 0
    stream.lastInterruption = { at, times }
    await stream.syncing
    if (times > 0) {
      this.#options.logger.warn({ ...stream.table, reason: error.message, times }, 'our own stream takes no messages')
      await delay(Math.min(RETRY_DELAY_MS.min * 2 ** (times - 1), RETRY_DELAY_MS.max))
    }
    if (!stream.writer.ready) await this.#resync(stream)
  }

  /** Looks at a stream until that succeeds, one look at a time; gives up while the mesh is down, until `resume`. */
  #resync(stream: LocalStream): Promise<void> {
    stream.syncing ??= this.#resyncUntilReady(stream).finally(() => {
      delete stream.syncing
    })
    return stream.syncing
  }

  async #resyncUntilReady(stream: LocalStream): Promise<void> {
    const { logger, mesh } = this.#options
    for (let wait = RETRY_DELAY_MS.min; !this.#closed; wait = Math.min(wait * 2, RETRY_DELAY_MS.max)) {
      try {
        return await stream.writer.resync()
      } catch (error) {
        stream.reason = reasonOf(error)
        if (mesh.state !== 'connected') return
        const quiet = error instanceof MeshError && error.code === 'disconnected'
        if (!quiet) logger.warn({ ...stream.table, reason: stream.reason }, 'the stream could not be looked at')
        await delay(wait)
      }
    }
  }
}
