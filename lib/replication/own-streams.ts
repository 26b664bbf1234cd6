// The streams of our own tables on our leaf: each made when first needed, looked at after every interruption.

import { setTimeout as delay } from 'node:timers/promises'
import { clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { Published } from '../host.ts'
import type { Logger } from '../logger.ts'
import { type Mesh, MeshError, type TableName } from '../mesh/mesh.ts'
import { TableMap } from '../table-map.ts'
import { type Part, type Position, TableLog } from './table-log.ts'

export type OwnStreamsOptions = {
  mesh: Mesh
  node: string
  logger: Logger
  /** Most messages in flight for one table. */
  window: number
  /** ms for each request to our leaf. */
  requestTimeout: number
  recall(table: TableName): Promise<Published | undefined>
  remember(table: TableName, position: Position): Promise<void>
  /** Sending to a stream was interrupted; it is looked at again. */
  interrupted(): void
}

type Stream = {
  table: TableName
  log: TableLog
  grownAt: number
  /** A look under way. */
  work?: Promise<void>
  /** Why the last look failed. */
  reason: string
  /** Where the stream was when sending was interrupted last, and how often it has not moved since. */
  interrupted: { at: number; times: number }
}

const RETRY = { first: 50, most: 1_000 }
/** ms for which a stream's last sequence is announced after it has grown. */
const ANNOUNCE_FOR = 30_000

export class OwnStreams {
  readonly #options: OwnStreamsOptions
  readonly #streams = new TableMap<Stream>()
  #closed = false

  constructor(options: OwnStreamsOptions) {
    this.#options = options
  }

  push(table: TableName, part: Part): void {
    this.#streamOf(table).log.push(part)
  }

  /** Everything is looked at again. */
  resume(): void {
    // Behind a look that is just giving up because the mesh was down.
    for (const stream of this.#streams.values()) void Promise.resolve(stream.work).then(() => this.#synchronize(stream))
  }

  /** The stream exists and its writer is in step with it. Rejects mesh_unavailable. */
  async ensure(table: TableName): Promise<Position> {
    const stream = this.#streamOf(table)
    if (!stream.log.ready) {
      const patience = new AbortController()
      const late = delay(this.#options.requestTimeout, undefined, { signal: patience.signal }).catch(() => {})
      await Promise.race([this.#synchronize(stream), late])
      patience.abort()
      if (!stream.log.ready) throw clusterError('mesh_unavailable', stream.reason)
    }
    return stream.log.position
  }

  /** Between two messages, with none in flight. Rejects mesh_unavailable. */
  async purge(table: TableName, options: { keep?: number; before?: number }): Promise<void> {
    try {
      await this.#streamOf(table).log.purge(options)
    } catch (error) {
      throw clusterErrorFrom(error, 'mesh_unavailable', reasonOf(error))
    }
  }

  /** Where those are that grew lately. */
  recent(): (TableName & Position)[] {
    const { mesh } = this.#options
    const since = mesh.timers.elapsed() - ANNOUNCE_FOR
    return [...this.#streams.values()]
      .filter(({ log, grownAt }) => log.position.epoch !== '' && grownAt >= since)
      .map(({ table, log }) => ({ ...table, ...log.position }))
  }

  close(): void {
    this.#closed = true
  }

  #streamOf(table: TableName): Stream {
    return this.#streams.get(table, this.#makeStream)
  }

  readonly #makeStream = (table: TableName): Stream => {
    const { mesh, node, window, requestTimeout, recall, remember } = this.#options
    const stream: Stream = {
      table,
      grownAt: mesh.timers.elapsed(),
      reason: 'not yet looked at',
      interrupted: { at: -1, times: 0 },
      log: new TableLog({
        table,
        node,
        mesh,
        window,
        requestTimeout,
        recall: () => recall(table),
        remember: (position) => remember(table, position),
        interrupted: (error) => void this.#interrupted(stream, error),
        grown: () => {
          stream.grownAt = mesh.timers.elapsed()
        },
      }),
    }
    void this.#synchronize(stream)
    return stream
  }

  /** Looks again behind a look under way; and later each time when the server refuses the same message again. */
  async #interrupted(stream: Stream, error: MeshError): Promise<void> {
    this.#options.interrupted()
    const at = stream.log.position.sequence
    const times = at === stream.interrupted.at ? stream.interrupted.times + 1 : 0
    stream.interrupted = { at, times }
    await stream.work
    if (times > 0) {
      this.#options.logger.warn({ ...stream.table, reason: error.message, times }, 'our own stream takes no messages')
      await delay(Math.min(RETRY.first * 2 ** (times - 1), RETRY.most))
    }
    if (!stream.log.ready) await this.#synchronize(stream)
  }

  /** Looks at a stream until that succeeds, one look at a time; gives up while the mesh is down, until `resume`. */
  #synchronize(stream: Stream): Promise<void> {
    stream.work ??= this.#lookUntilReady(stream).finally(() => {
      delete stream.work
    })
    return stream.work
  }

  async #lookUntilReady(stream: Stream): Promise<void> {
    const { logger, mesh } = this.#options
    for (let wait = RETRY.first; !this.#closed; wait = Math.min(wait * 2, RETRY.most)) {
      try {
        return await stream.log.synchronize()
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
