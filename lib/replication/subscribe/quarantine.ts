// What cannot be applied: one file for each transaction, and for each message that is unreadable as a whole, with the reason, until it is
// replayed or discarded. The checkpoint names the quarantined transactions. A file is written before the checkpoint passes them, and
// removed after the checkpoint releases them, so a file that the checkpoint does not name is a leftover.

import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Checkpoint, RemoteTable, RemoteTransaction, Timestamp } from '../../host/host.ts'
import type { Logger } from '../../observe/logger.ts'
import { writeFileAtomic } from '../../util/atomic-file.ts'
import { isLater, readableVersions, versionText } from '../../util/format-version.ts'
import { systemTimers } from '../../util/timers.ts'
import { inRanges, rangesOf } from '../applied-ranges.ts'
import type { StoredPart } from '../wire/frame.ts'
import { sourceKey } from './sources.ts'

export type QuarantineCause = 'timestamp' | 'content'

/** A transaction in quarantine, or a message that is unreadable as a whole. */
export type QuarantinedMessage = {
  source: RemoteTable
  epoch: string
  /** Running number in the epoch, and number of transactions from it on: 1 unless a whole message is unreadable. */
  index: number
  count: number
  /** Of the message: several transactions may have the same. */
  sequence: number
  reason: string
  /** `timestamp`: it is applied automatically when the local clock reaches its timestamp, unless its origin voids it. `content`: all others. */
  cause: QuarantineCause
  /** Id of the transaction; absent when it is unreadable. */
  id?: string
  /** Only with the cause `timestamp`. */
  timestamp?: Timestamp
  /** Only with the cause `timestamp`: which node committed it, and its position in the stream of that node. */
  origin?: { node: string; epoch?: string; index?: number }
  /** ms since 1970: when the source stored it, and when it was quarantined. */
  storedAt: number
  quarantinedAt: number
  /** Bytes of the transaction, or of the message without its headers. */
  bytes: number
}

/** The undecoded bytes that are quarantined, and what they are. `message`: a whole message, with its headers. */
export type QuarantinedContent = Omit<StoredPart, 'format'> & {
  format: StoredPart['format'] | 'message'
  count: number
}

export type QuarantineOptions = {
  directory: string
  /** Maximum number of messages, and of bytes of their files, of all sources together. */
  maxMessages: number
  maxBytes: number
  logger: Logger
}

/**
 * Version of a quarantine file, in its field `v`.
 *
 * 1: the fields below.
 */
export const QUARANTINE_VERSION = 1
const READABLE = readableVersions(QUARANTINE_VERSION)

const FileType = Type.Object({
  v: Type.Integer(),
  source: Type.Object({ node: Type.String(), database: Type.String(), table: Type.String() }),
  epoch: Type.String(),
  index: Type.Integer(),
  count: Type.Integer({ minimum: 1 }),
  sequence: Type.Integer(),
  reason: Type.String(),
  cause: Type.Union([Type.Literal('timestamp'), Type.Literal('content')]),
  id: Type.Optional(Type.String()),
  timestamp: Type.Optional(Type.String()),
  origin: Type.Optional(
    Type.Object({
      node: Type.String(),
      epoch: Type.Optional(Type.String()),
      index: Type.Optional(Type.Integer()),
    }),
  ),
  storedAt: Type.Number(),
  quarantinedAt: Type.Number(),
  format: Type.Union([Type.Literal('part'), Type.Literal('single'), Type.Literal('message')]),
  /** The owner of the stream when it was stored. */
  node: Type.String(),
  headers: Type.Record(Type.String(), Type.String()),
  /** base64 */
  data: Type.String(),
})
const fileSchema = Compile(FileType)
type FileContent = Type.Static<typeof FileType>

type MessageRef = { source: RemoteTable; epoch: string; index: number }
const keyOf = ({ source: { node, database, table }, epoch, index }: MessageRef) =>
  JSON.stringify([node, database, table, epoch, index])
/** A transaction that is valid except for its timestamp. */
type EarlyTransaction = Pick<RemoteTransaction, 'timestamp' | 'origin'>

const originOf = ({ origin: { node, epoch, index } }: EarlyTransaction) => ({
  node,
  ...(epoch !== undefined && { epoch }),
  ...(index !== undefined && { index }),
})

const sameSource = (a: RemoteTable, b: RemoteTable) =>
  a.node === b.node && a.database === b.database && a.table === b.table

export class Quarantine {
  readonly #options: QuarantineOptions
  readonly #messages = new Map<string, { message: QuarantinedMessage; file: string; size: number }>()
  /** Number of messages of each source that has some, by `sourceKey`: statuses of many subscriptions are read every second. */
  readonly #counts = new Map<string, number>()
  /** Bytes of all files. */
  #bytes = 0

  private constructor(options: QuarantineOptions) {
    this.#options = options
  }

  /** Reads the directory. An unreadable file is logged and stays where it is. Rejects version_unsupported for a file of a later version. */
  static async open(options: QuarantineOptions): Promise<Quarantine> {
    const quarantine = new Quarantine(options)
    const { directory, logger } = options
    for (const name of await readdir(directory).catch(() => [])) {
      const file = join(directory, name)
      // A temporary file of a process that died while writing: the message is still in its stream.
      if (!name.endsWith('.json')) await rm(file, { force: true }).catch(() => {})
      else
        try {
          quarantine.#add(await read(file), file, (await stat(file)).size)
        } catch (error) {
          if (error instanceof ClusterError) throw error
          logger.warn({ file, reason: reasonOf(error) }, 'unreadable quarantine file')
        }
    }
    return quarantine
  }

  get size(): number {
    return this.#messages.size
  }

  /** Number of messages of a source. */
  count(source: RemoteTable): number {
    return this.#counts.size === 0 ? 0 : (this.#counts.get(sourceKey(source)) ?? 0)
  }

  /** Those of one source, or of all, in the order of the streams. */
  list(source?: RemoteTable): QuarantinedMessage[] {
    return [...this.#messages.values()]
      .map(({ message }) => message)
      .filter((message) => !source || sameSource(message.source, source))
      .sort((a, b) => a.sequence - b.sequence || a.index - b.index)
  }

  /** Idempotent. `early`: only the timestamp is the fault. Rejects quarantine_full, and as the disk does. */
  async put(
    source: RemoteTable,
    { data, headers, time, epoch, index, count, sequence, format, node }: QuarantinedContent,
    reason: string,
    id?: string,
    early?: EarlyTransaction,
  ): Promise<QuarantinedMessage> {
    const { directory, maxMessages, maxBytes } = this.#options
    const known = this.#messages.get(keyOf({ source, epoch, index }))
    if (known) return known.message
    const content: FileContent = {
      v: QUARANTINE_VERSION,
      source: { node: source.node, database: source.database, table: source.table },
      epoch,
      index,
      count,
      sequence,
      reason,
      cause: early ? 'timestamp' : 'content',
      ...(id === undefined ? {} : { id }),
      ...(early && { timestamp: early.timestamp, origin: originOf(early) }),
      storedAt: time,
      quarantinedAt: systemTimers.now(),
      format,
      node,
      headers: { ...headers },
      data: Buffer.from(data).toString('base64'),
    }
    // Names of nodes and tables may contain characters that a file name must not have.
    const name = createHash('sha256').update(keyOf(content)).digest('hex').slice(0, 32)
    const file = join(directory, `${name}.json`)
    const text = JSON.stringify(content)
    const size = Buffer.byteLength(text)
    if (this.#messages.size >= maxMessages || this.#bytes + size > maxBytes)
      throw clusterError('quarantine_full', this.#messages.size, this.#bytes, reason)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    await writeFileAtomic(file, text)
    return this.#add(content, file, size)
  }

  /** What was put. Undefined when it is not in quarantine. */
  async content(message: MessageRef): Promise<QuarantinedContent | undefined> {
    const known = this.#messages.get(keyOf(message))
    if (!known) return undefined
    const { headers, data, storedAt: time, sequence, epoch, index, count, format, node } = await read(known.file)
    return { headers, data: Buffer.from(data, 'base64'), time, sequence, epoch, index, count, format, node }
  }

  async remove(message: MessageRef): Promise<void> {
    const key = keyOf(message)
    const known = this.#messages.get(key)
    if (!known) return
    this.#messages.delete(key)
    this.#addToCount(known.message.source, -1)
    this.#bytes -= known.size
    await rm(known.file, { force: true })
  }

  /** Removes the messages of a source that its checkpoint does not name. */
  async reconcile(source: RemoteTable, quarantined: Checkpoint['quarantined']): Promise<void> {
    for (const message of this.list(source))
      if (!inRanges(rangesOf(quarantined, message.epoch), message.index)) await this.remove(message)
  }

  /** The remote tables with messages whose only fault is their timestamp and for which `isDue` returns true. */
  dueSources(isDue: (message: QuarantinedMessage) => boolean): RemoteTable[] {
    const sources = new Map<string, RemoteTable>()
    for (const { message } of this.#messages.values()) {
      const { node, database, table } = message.source
      const key = JSON.stringify([node, database, table])
      if (!sources.has(key) && isDue(message)) sources.set(key, message.source)
    }
    return [...sources.values()]
  }

  #add(
    { v: _, data, headers: __, format: ___, node: ____, ...content }: FileContent,
    file: string,
    size: number,
  ): QuarantinedMessage {
    const message = { ...content, bytes: Buffer.byteLength(data, 'base64') } as QuarantinedMessage
    const key = keyOf(message)
    const replaced = this.#messages.get(key)
    if (!replaced) this.#addToCount(message.source, 1)
    this.#messages.set(key, { message, file, size })
    this.#bytes += size - (replaced?.size ?? 0)
    return message
  }

  #addToCount(source: RemoteTable, change: number): void {
    const key = sourceKey(source)
    const count = (this.#counts.get(key) ?? 0) + change
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }
}

async function read(file: string): Promise<FileContent> {
  const content: unknown = JSON.parse(await readFile(file, 'utf8'))
  const version = (content as { v?: unknown } | null)?.v
  if (isLater(version, READABLE)) throw clusterError('version_unsupported', file, version, versionText(READABLE))
  if (!fileSchema.Check(content)) throw new Error('invalid content')
  return content
}
