// Messages that cannot be applied: one file each, with the reason, until they are replayed or discarded. The checkpoint names
// the quarantined messages. A file is written before the checkpoint passes the message, and removed after the checkpoint releases
// it, so a file that the checkpoint does not name is a leftover.

import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Checkpoint, RemoteTable, RemoteTransaction, Timestamp } from '../../host/host.ts'
import type { Entry } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import { writeFileAtomic } from '../../util/atomic-file.ts'
import { isLater, readableVersions, versionText } from '../../util/format-version.ts'
import { inRanges, rangesOf } from '../applied-ranges.ts'

export type QuarantineCause = 'timestamp' | 'content'

/** A message in quarantine. */
export type QuarantinedMessage = {
  source: RemoteTable
  epoch: string
  sequence: number
  reason: string
  /** `timestamp`: it is applied automatically when the local clock reaches its timestamp, unless its origin voids it. `content`: all others. */
  cause: QuarantineCause
  /** Id of the transaction; absent when the message is unreadable. */
  id?: string
  /** Only with the cause `timestamp`. */
  timestamp?: Timestamp
  /** Only with the cause `timestamp`: which node committed it, and its position in the stream of that node. */
  origin?: { node: string; epoch?: string; index?: number }
  /** ms since 1970: when the source stored it, and when it was quarantined. */
  storedAt: number
  quarantinedAt: number
  /** Bytes of the message without its headers. */
  bytes: number
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
  headers: Type.Record(Type.String(), Type.String()),
  /** base64 */
  data: Type.String(),
})
const fileSchema = Compile(FileType)
type FileContent = Type.Static<typeof FileType>

type MessageRef = { source: RemoteTable; epoch: string; sequence: number }
const keyOf = ({ source: { node, database, table }, epoch, sequence }: MessageRef) =>
  JSON.stringify([node, database, table, epoch, sequence])
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

  /** The messages of one source, or of all, by sequence. */
  list(source?: RemoteTable): QuarantinedMessage[] {
    return [...this.#messages.values()]
      .map(({ message }) => message)
      .filter((message) => !source || sameSource(message.source, source))
      .sort((a, b) => a.sequence - b.sequence)
  }

  /** Idempotent. `early`: only the timestamp is the fault. Rejects quarantine_full, and as the disk does. */
  async put(
    source: RemoteTable,
    epoch: string,
    entry: Entry,
    reason: string,
    id?: string,
    early?: EarlyTransaction,
  ): Promise<QuarantinedMessage> {
    const { directory, maxMessages, maxBytes } = this.#options
    const { sequence } = entry
    const known = this.#messages.get(keyOf({ source, epoch, sequence }))
    if (known) return known.message
    const content: FileContent = {
      v: QUARANTINE_VERSION,
      source: { node: source.node, database: source.database, table: source.table },
      epoch,
      sequence,
      reason,
      cause: early ? 'timestamp' : 'content',
      ...(id === undefined ? {} : { id }),
      ...(early && { timestamp: early.timestamp, origin: originOf(early) }),
      storedAt: entry.time,
      quarantinedAt: Date.now(),
      headers: { ...entry.headers },
      data: Buffer.from(entry.data).toString('base64'),
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

  /** The message as it was received, except its delivery number. Undefined when it is not in quarantine. */
  async entry(message: MessageRef): Promise<Entry | undefined> {
    const known = this.#messages.get(keyOf(message))
    if (!known) return undefined
    const { headers, data, storedAt, sequence } = await read(known.file)
    return { headers, data: Buffer.from(data, 'base64'), time: storedAt, sequence, delivery: 0 }
  }

  async remove(message: MessageRef): Promise<void> {
    const key = keyOf(message)
    const known = this.#messages.get(key)
    if (!known) return
    this.#messages.delete(key)
    this.#bytes -= known.size
    await rm(known.file, { force: true })
  }

  /** Removes the messages of a source that its checkpoint does not name. */
  async reconcile(source: RemoteTable, quarantined: Checkpoint['quarantined']): Promise<void> {
    for (const message of this.list(source))
      if (!inRanges(rangesOf(quarantined, message.epoch), message.sequence)) await this.remove(message)
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

  #add({ v: _, data, headers: __, ...content }: FileContent, file: string, size: number): QuarantinedMessage {
    const message = { ...content, bytes: Buffer.byteLength(data, 'base64') } as QuarantinedMessage
    this.#messages.set(keyOf(message), { message, file, size })
    this.#bytes += size
    return message
  }
}

async function read(file: string): Promise<FileContent> {
  const content: unknown = JSON.parse(await readFile(file, 'utf8'))
  const version = (content as { v?: unknown } | null)?.v
  if (isLater(version, READABLE)) throw clusterError('version_unsupported', file, version, versionText(READABLE))
  if (!fileSchema.Check(content)) throw new Error('invalid content')
  return content
}
