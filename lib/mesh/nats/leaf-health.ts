// Decides whether the local leaf's streams can be written, and has a leaf replaced whose store is not trusted.

import { reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { delay } from '../../util/timers.ts'
import { MeshError, type RemoteTable, type RequestOptions, type StreamState, type TableName } from '../mesh.ts'
import { type JetStream, streamName } from './jetstream.ts'
import type { LocalConnections } from './local-connections.ts'
import { checkDisk, checkStore, dropIndexes, findStreamFault, isStoreError, moveDamagedStream } from './store-health.ts'

/** `up`: the store answers and its disk has room; `down`: not, recovering. */
export type LeafState = 'starting' | 'up' | 'down' | 'closed'

export type LeafHealthOptions = {
  node: string
  storeDirectory: string
  jetStream: JetStream
  connections: LocalConnections
  /** The table whose stream was written last. */
  writtenTable(): TableName | undefined
  /** Kills the leaf and starts it again. */
  replaceLeaf(reason: string): void
  /** Also called with the same state when the reason changes. */
  changed(state: 'up' | 'down', reason?: string): void
  logger: Logger
}

export const PROBE_TIMEOUT_MS = 2_000
const RECOVERY_INTERVAL_MS = 20
const DISK_FULL_INTERVAL_MS = 500

export class LeafHealth {
  readonly #options: LeafHealthOptions
  #state: LeafState = 'starting'
  #reason: string | undefined
  /** Why the disk of the store may soon be too full for writing. */
  lowDisk: string | undefined
  #recovering = false
  /** The server's state may differ from its files: its next start reads all messages instead of the indexes. */
  #suspect = false
  /** By stream, the session in which the stream was verified. */
  readonly #verified = new Map<string, string>()
  /** By stream, the session in which the stream was found faulty. */
  readonly #faulty = new Map<string, string>()
  /** Names of the streams that the next start moves away. */
  readonly #damaged = new Set<string>()

  constructor(options: LeafHealthOptions) {
    this.#options = options
  }

  /** Call it when the leaf has started for the first time. On a full disk the node runs, and cannot write. */
  async started(): Promise<void> {
    const full = await this.#checkDisk()
    if (this.#state !== 'starting') return
    if (!full) return this.#set('up')
    this.#set('down', full)
    void this.recover()
  }

  close(): void {
    this.#state = 'closed'
  }

  /** Rejects when the leaf does not answer; a full disk only changes the state. */
  async probe(signal: AbortSignal): Promise<void> {
    await this.#checkStore({ timeout: PROBE_TIMEOUT_MS, signal })
    if (this.#state !== 'up') return
    const full = await this.#checkDisk()
    if (!full) return
    // The server keeps running: remote nodes can still read its streams.
    this.markDown(full)
    void this.recover()
  }

  markDown(reason: string): void {
    if (this.#state === 'up') this.#set('down', reason)
  }

  /** Reports why a leaf that is down stays down. */
  reportDown(reason: string): void {
    if (!this.#isDown || reason === this.#reason) return
    this.#options.logger.warn({ reason }, 'the leaf server is not writable')
    this.#set('down', reason)
  }

  /** Polls until the store answers and has room: the client reconnects before the store is ready. */
  async recover(): Promise<void> {
    if (this.#recovering) return
    this.#recovering = true
    while (this.#isDown) {
      const full = await this.#checkDisk()
      if (full) this.reportDown(full)
      const ready =
        !full &&
        (await this.#checkStore({ timeout: PROBE_TIMEOUT_MS }).then(
          () => true,
          () => false,
        ))
      // The mesh may be closed by now.
      if (ready && this.#isDown) this.#set('up')
      else await delay(full ? DISK_FULL_INTERVAL_MS : RECOVERY_INTERVAL_MS)
    }
    this.#recovering = false
  }

  /** Call it when the leaf was started again and passes its probe. */
  returned(): void {
    this.#suspect = false
    void this.recover()
  }

  /** Call it with each line of the leaf's log. */
  onLogLine(level: string, text: string): void {
    if (isStoreError(level, text)) this.#markSuspect(text)
  }

  /** Call it before the leaf is started, while none runs: repairs a suspect store. */
  async prepare(): Promise<void> {
    if (!this.#suspect) return
    const { storeDirectory, logger } = this.#options
    await dropIndexes(storeDirectory)
    for (const stream of this.#damaged) {
      logger.error({ stream, directory: storeDirectory }, 'moving a damaged stream away; a new stream replaces it')
      await moveDamagedStream(storeDirectory, stream).catch((error) =>
        logger.error({ stream, reason: reasonOf(error) }, 'could not move the damaged stream'),
      )
    }
    this.#damaged.clear()
  }

  /**
   * Call it before a stream is written: an unreadable last message would make later messages unreadable too. Checks each stream once
   * a session. Rejects `disconnected` when the stream is faulty.
   */
  async verify(source: RemoteTable, state: StreamState, options: RequestOptions): Promise<void> {
    const session = this.#options.connections.leafSession
    const name = streamName(source)
    if (this.#verified.get(name) === session) return
    const fault = await findStreamFault(this.#options.jetStream, source, state, options)
    const before = this.#faulty.get(name)
    if (!fault) {
      this.#faulty.delete(name)
      this.#verified.set(name, session)
      return
    }
    // A start that read all messages did not help: the next one begins with an empty stream.
    if (before !== undefined && before !== session) this.#damaged.add(name)
    this.#faulty.set(name, session)
    this.#markSuspect(fault)
    throw new MeshError('disconnected', fault)
  }

  get #isDown(): boolean {
    return this.#state === 'down'
  }

  #set(state: 'up' | 'down', reason?: string): void {
    this.#state = state
    this.#reason = reason
    this.#options.changed(state, reason)
  }

  #markSuspect(reason: string): void {
    if (this.#state === 'closed') return
    this.#suspect = true
    this.#options.replaceLeaf(reason)
  }

  /** Why the disk is too full for writing. */
  async #checkDisk(): Promise<string | undefined> {
    const { full, low } = await checkDisk(this.#options.storeDirectory)
    this.lowDisk = low
    return full
  }

  async #checkStore(options: RequestOptions): Promise<void> {
    const { jetStream, node, writtenTable, connections } = this.#options
    connections.requireLeaf()
    await checkStore(jetStream, node, writtenTable(), options)
  }
}
