// `trim: applied`: removes from the local streams what every subscriber has applied, some time after it was stored. A subscriber that turns
// out to need it after all, because its database was restored, reports a gap and copies the rows.

import { reasonOf } from '../../errors.ts'
import type { TableName } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { Mesh } from '../../mesh/mesh.ts'
import type { Logger } from '../../observe/logger.ts'
import type { Publisher } from '../publish/publisher.ts'
import { readFrame } from '../publish/stored-frame.ts'
import type { StreamEnd } from '../publish/stream-writer-options.ts'
import { readStreamMetadata } from '../stream-metadata.ts'
import type { AppliedPosition } from './applied-state.ts'
import type { ReplicaPositions } from './replica-positions.ts'
import type { TableIndex } from './table-index.ts'

export type StreamTrimmerOptions = {
  node: string
  mesh: Mesh
  logger: Logger
  requestTimeout: number
  index: Pick<TableIndex, 'publishedTables' | 'subscribersOf'>
  replicas: Pick<ReplicaPositions, 'reportOf' | 'lastStoredAt'>
  publisher: Pick<Publisher, 'ensure' | 'endOf' | 'confirmedPosition' | 'trim'>
  /** ms for which messages are kept that everybody has applied; undefined: nothing is trimmed. */
  trimAfter(): number | undefined
}

/** ms between two passes over all tables. With a short `trimAfter` they are more frequent. */
const INTERVAL_MS = { least: 250, most: 60_000 }
const PASSES_WITHIN_TRIM_AFTER = 10

export class StreamTrimmer {
  readonly #options: StreamTrimmerOptions
  /** By `tableKey`: all messages before that sequence were removed. */
  readonly #trimmed = new Map<string, { epoch: string; before: number }>()
  #cancelTimer = () => {}
  #isOpen = false
  #isRunning = false

  constructor(options: StreamTrimmerOptions) {
    this.#options = options
  }

  /** After `close`, it may be started again. Call `onSettings` afterwards. */
  start(): void {
    this.#isOpen = true
  }

  close(): void {
    this.#isOpen = false
    this.#cancelTimer()
  }

  /** `trimAfter` may have changed. */
  onSettings(): void {
    this.#cancelTimer()
    const trimAfter = this.#options.trimAfter()
    if (!this.#isOpen || trimAfter === undefined) return
    const { least, most } = INTERVAL_MS
    const interval = Math.min(Math.max(trimAfter / PASSES_WITHIN_TRIM_AFTER, least), most)
    this.#cancelTimer = this.#options.mesh.timers.every(interval, () => void this.#trimAll(trimAfter))
  }

  /** One table after the other, so that a node with many of them has no burst of requests. */
  async #trimAll(trimAfter: number): Promise<void> {
    const { index, logger, mesh } = this.#options
    if (this.#isRunning) return
    this.#isRunning = true
    for (const table of index.publishedTables()) {
      if (!this.#isOpen || mesh.state !== 'connected') break
      await this.#trim(table, trimAfter).catch((error) =>
        logger.debug({ ...table, reason: reasonOf(error) }, 'a stream was not trimmed, retrying'),
      )
    }
    this.#isRunning = false
  }

  async #trim(table: TableName, trimAfter: number): Promise<void> {
    const { publisher, replicas, mesh } = this.#options
    const positions = this.#positions(table)
    if (!positions) return
    // Of a table that was not written since the start, the end is not known yet.
    const end = publisher.endOf(table) ?? (await publisher.ensure(table))
    const { epoch } = end
    const lowest = lowestSequence(positions, end)
    const old = replicas.lastStoredAt(table, epoch, mesh.timers.elapsed() - trimAfter)
    if (lowest === undefined || old === undefined) return
    const confirmed = await publisher.confirmedPosition(table)
    if (confirmed?.epoch !== epoch) return
    // The message at the position of a subscriber stays: it is compared with the transaction that was applied last.
    const before = Math.min(lowest, old, confirmed.sequence)
    const done = this.#trimmed.get(tableKey(table))
    if (before <= 1 || (done?.epoch === epoch && done.before >= before)) return
    if (await this.#isMissed(table, positions)) return
    await publisher.trim(table, { epoch, before })
    this.#trimmed.set(tableKey(table), { epoch, before })
  }

  /** Of all nodes that subscribe to the table; undefined without such a node, or while one has not reported or is being copied to. */
  #positions(table: TableName): AppliedPosition[] | undefined {
    const { index, replicas } = this.#options
    const subscribers = index.subscribersOf(table)
    const positions = subscribers.flatMap((node) => replicas.reportOf({ node, ...table })?.position ?? [])
    const areKnown = positions.length === subscribers.length && positions.length > 0
    return areKnown && !positions.some(({ isCopying }) => isCopying) ? positions : undefined
  }

  /** Whether the stream still has a transaction that a subscriber has passed without applying it: from quarantine, it may need it again. */
  async #isMissed({ database, table }: TableName, positions: readonly AppliedPosition[]): Promise<boolean> {
    const missing = positions.flatMap((each) => Object.entries(each.missing))
    if (missing.length === 0) return false
    const { mesh, node, requestTimeout: timeout } = this.#options
    const source = { node, database, table }
    const state = await mesh.streamState(source, { timeout })
    if (!state) return true
    const first = await readFrame(mesh, source, state.firstSequence, timeout)
    if (first?.first === undefined) return true
    const { epoch, first: firstIndex } = first
    const epochs = readStreamMetadata(state.description).epochs.map((each) => each.epoch)
    const isStored = (each: string, last: number) =>
      each === epoch ? last >= firstIndex : epochs.indexOf(each) > epochs.indexOf(epoch)
    return missing.some(([each, ranges]) => ranges.some(([, last]) => isStored(each, last)))
  }
}

/** Undefined if one of them is in another epoch, or beyond the end of the stream: what it says is not about these messages. */
function lowestSequence(positions: readonly AppliedPosition[], end: StreamEnd): number | undefined {
  const areWithin = positions.every(({ epoch, sequence }) => epoch === end.epoch && sequence <= end.sequence)
  return areWithin ? Math.min(...positions.map(({ sequence }) => sequence)) : undefined
}
