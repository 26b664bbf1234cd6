// Whether our leaf's store does its work: what is asked of it, what its log tells, and whether its disk has room.

import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { RemoteTable, RequestOptions, StreamState, TableName } from '../mesh.ts'
import { MAX_STORED_BYTES } from './configuration.ts'
import type { JetStream } from './jetstream.ts'

/**
 * Bytes that the disk must have free for us to write: the largest message, and as much again. Where a write fails for want of
 * room, 2.9 hangs with all its streams, those too that others are reading.
 */
const MIN_FREE_BYTES = 2 * MAX_STORED_BYTES

/** JetStream answers, and so does a stream that we write: on a full disk the one may do without the other. */
export async function checkStore(
  jetStream: JetStream,
  node: string,
  written: TableName | undefined,
  options: RequestOptions,
): Promise<void> {
  await jetStream.info(node, options)
  if (written) await jetStream.stream({ node, ...written }, options)
}

/** What there is to say when the disk of this folder is too full to be written; undefined when it is not, or cannot be asked. */
export async function diskFullReason(directory: string): Promise<string | undefined> {
  const disk = await statfs(directory).catch(() => undefined)
  if (!disk || disk.blocks === 0 || disk.bavail * disk.bsize >= MIN_FREE_BYTES) return undefined
  return `the disk of ${directory} is full: less than ${Math.ceil(MIN_FREE_BYTES / 1024 / 1024)} MB are free`
}

const STORE_ERROR =
  /failed to store|malformed or corrupt|out of (?:\S+ )?(?:resources|space)|no space left|input\/output error|write error|filestore/i

/** After one of these a server may go on with a state that its files do not have. */
export const isStoreError = (level: string, text: string): boolean =>
  (level === 'ERR' || level === 'FTL') && STORE_ERROR.test(text)

/**
 * What a stream's INFO says must be there: its last message above all, for what is written next goes into the same file.
 * Resolves with what is wrong. (A server that was ended in order believes its index, whatever has become of the messages.)
 */
export async function findStreamFault(
  jetStream: JetStream,
  source: RemoteTable,
  { messages, firstSequence, lastSequence }: StreamState,
  options: RequestOptions,
): Promise<string | undefined> {
  if (messages === 0) return undefined
  const where = `the stream of ${source.database}.${source.table}`
  if (messages > lastSequence - firstSequence + 1)
    return `${where} claims ${messages} messages from ${firstSequence} to ${lastSequence}`
  if (await jetStream.hasMessage(source, lastSequence, options)) return undefined
  // It may have been removed in between; but what was given once as the last sequence only grows.
  const now = await jetStream.stream(source, options)
  if (!now || now.lastSequence > lastSequence || (now.messages === 0 && now.lastSequence === lastSequence))
    return undefined
  return `${where} claims message ${lastSequence} and cannot read it`
}

/** Where people may look for what can be saved of streams that were set aside. */
const DAMAGED_DIRECTORY = 'damaged'

/** A stream that nothing else helped: written on, it would lose that too. Only while no server runs. */
export async function moveDamagedStream(storeDirectory: string, stream: string): Promise<void> {
  const directory = join(storeDirectory, DAMAGED_DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await rename(
    join(storeDirectory, 'jetstream', 'HDB', 'streams', stream),
    join(directory, `${stream}-${new Date().toISOString().replaceAll(':', '-')}`),
  )
}

const INDEX_FILE = /\.(?:idx|fss)$|^index\.db$/

/** Has the server that is started next read all messages, and keep what of them is whole. Only while none runs. */
export async function dropIndexes(storeDirectory: string): Promise<void> {
  const names = await readdir(storeDirectory, { recursive: true }).catch(() => [])
  await Promise.all(
    names
      .filter((name) => INDEX_FILE.test(basename(name)))
      .map((name) => rm(join(storeDirectory, name), { force: true })),
  )
}
