// Checks of the leaf's store (JetStream answers, log lines, disk space, stream faults) and its repair.

import { mkdir, readdir, rename, rm, statfs } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { systemTimers } from '../../util/timers.ts'
import type { RemoteTable, RequestOptions, StreamState, TableName } from '../mesh.ts'
import { MAX_STORED_BYTES } from './configuration.ts'
import type { JetStream } from './jetstream.ts'

/**
 * Bytes of free disk space required for writing: twice the largest message. When a write fails on a full disk, 2.9 hangs with all
 * its streams, for readers too.
 */
const MIN_FREE_BYTES = 2 * MAX_STORED_BYTES
/** A disk is low with less than this fraction of it, and less than this many bytes, but at least twice the minimum. */
const LOW_FRACTION = 0.05
const MAX_LOW_BYTES = 1024 ** 3

/** Rejects unless JetStream and the written stream answer: on a full disk JetStream may answer while the stream hangs. */
export async function checkStore(
  jetStream: JetStream,
  node: string,
  written: TableName | undefined,
  options: RequestOptions,
): Promise<void> {
  await jetStream.info(node, options)
  if (written) await jetStream.stream({ node, ...written }, options)
}

/** `full`: why the disk is too full for writing; `low`: why it may soon be. Both are absent when it has room or cannot be checked. */
export type DiskReport = { full?: string; low?: string }

export async function checkDisk(directory: string): Promise<DiskReport> {
  const disk = await statfs(directory).catch(() => undefined)
  if (!disk || disk.blocks === 0) return {}
  return diskReport(directory, disk.bavail * disk.bsize, disk.blocks * disk.bsize)
}

const inMegabytes = (bytes: number) => `${Math.ceil(bytes / 1024 / 1024)} MB`

export function diskReport(directory: string, freeBytes: number, totalBytes: number): DiskReport {
  if (freeBytes < MIN_FREE_BYTES)
    return { full: `the disk of ${directory} is full: less than ${inMegabytes(MIN_FREE_BYTES)} are free` }
  const lowBytes = Math.max(2 * MIN_FREE_BYTES, Math.min(MAX_LOW_BYTES, totalBytes * LOW_FRACTION))
  if (freeBytes >= lowBytes) return {}
  const [low, min] = [inMegabytes(lowBytes), inMegabytes(MIN_FREE_BYTES)]
  return {
    low: `the disk of ${directory} is nearly full: less than ${low} are free, and below ${min} nothing is stored`,
  }
}

const STORE_ERROR =
  /failed to store|malformed or corrupt|out of (?:\S+ )?(?:resources|space)|no space left|input\/output error|write error|filestore/i

/** True for errors after which the server's state may differ from its files. */
export const isStoreError = (level: string, text: string): boolean =>
  (level === 'ERR' || level === 'FTL') && STORE_ERROR.test(text)

/**
 * Compares a stream's INFO with its messages, above all the last one: the next message goes into the same file. Resolves with the
 * fault, or undefined. Needed because a server that was stopped in order trusts its index without reading the messages.
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
    return `${where} reports ${messages} messages from ${firstSequence} to ${lastSequence}`
  if (await jetStream.message(source, lastSequence, options)) return undefined
  // The message may have been removed in between; the last sequence itself only grows.
  const now = await jetStream.stream(source, options)
  if (!now || now.lastSequence > lastSequence || (now.messages === 0 && now.lastSequence === lastSequence))
    return undefined
  return `${where} cannot read its last message, ${lastSequence}`
}

/** Keeps moved streams, so that an operator can recover data from them. */
const DAMAGED_DIRECTORY = 'damaged'

/** For a stream that cannot be repaired: new messages would be lost in it too. Call it only while no server runs. */
export async function moveDamagedStream(storeDirectory: string, stream: string): Promise<void> {
  const directory = join(storeDirectory, DAMAGED_DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  await rename(
    join(storeDirectory, 'jetstream', 'HDB', 'streams', stream),
    join(directory, `${stream}-${new Date(systemTimers.now()).toISOString().replaceAll(':', '-')}`),
  )
}

const INDEX_FILE = /\.(?:idx|fss)$|^index\.db$/

/** Without indexes the next server reads all messages and keeps the valid ones. Call it only while no server runs. */
export async function dropIndexes(storeDirectory: string): Promise<void> {
  const names = await readdir(storeDirectory, { recursive: true }).catch(() => [])
  await Promise.all(
    names
      .filter((name) => INDEX_FILE.test(basename(name)))
      .map((name) => rm(join(storeDirectory, name), { force: true })),
  )
}
