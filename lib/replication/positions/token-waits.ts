// Waits until this node has what a token names: the transaction of another node, by whatever path it comes.

import { type ClusterError, clusterError } from '../../errors.ts'
import type { Checkpoint, RemoteTable, TableName, Timestamp } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { Mesh } from '../../mesh/mesh.ts'
import { isNewer, newestAt, wasApplied } from '../applied-ranges.ts'
import type { TableSource, TableStatus } from '../copy/row-messages.ts'
import type { Publisher, TransactionPosition } from '../publish/publisher.ts'
import { type EpochRange, readStreamMetadata } from '../stream-metadata.ts'
import { sourceKey } from '../subscribe/sources.ts'
import { type AppliedPosition, type AppliedState, atLeast, stateIn } from './applied-state.ts'
import { Deadline } from './deadline.ts'
import type { TableIndex } from './table-index.ts'
import type { Token } from './token.ts'

export type TokenWaitsOptions = {
  /** Name of the local node. */
  node: string
  mesh: Pick<Mesh, 'timers' | 'streamState'>
  requestTimeout: number
  publisher: Pick<Publisher, 'ensure' | 'endOf'>
  index: Pick<TableIndex, 'sourcesOf'>
  /** How far a source is applied; undefined before it has begun. */
  position(source: RemoteTable): AppliedPosition | undefined
  checkpoint(source: RemoteTable): Checkpoint | undefined
  /** What a node that relays has of a table. Rejects when it does not answer. */
  statusOf(source: RemoteTable, options: { signal: AbortSignal }): Promise<TableStatus>
}

/** `wait`: not yet. */
type Outcome = 'applied' | 'wait' | ClusterError
/** The end of a relaying node's stream, which has the transaction. */
type RelayedPosition = { source: RemoteTable; epoch: string; sequence: number }

/** One part of a token. */
type Wait = {
  node: string
  timestamp: Timestamp
  part: TransactionPosition
  /** Whether the epoch is an earlier one than that of the position with this epoch; as the source's stream says. */
  isEarlier?: { than: string; value: boolean } | undefined
  /** The last message of this epoch of the source, which had stored the transaction by then: it is asked for when a subscriber knows no running number. */
  end?: { epoch: string; sequence: number } | undefined
  relayed: readonly RelayedPosition[]
  resolve(): void
  reject(error: ClusterError): void
  check(): void
}

/** ms between two questions to other nodes. */
const ASK_INTERVAL_MS = 250

export class TokenWaits {
  readonly #options: TokenWaitsOptions
  /** By `tableKey`. */
  readonly #waits = new Map<string, Set<Wait>>()
  /** Requests to relaying nodes that are not answered, by `sourceKey`. */
  readonly #asking = new Map<string, Promise<TableStatus>>()
  #closing = new AbortController()

  constructor(options: TokenWaitsOptions) {
    this.#options = options
  }

  /** Rejects everything that waits: `closed`. Then it may be used again. */
  close(): void {
    this.#closing.abort()
    this.#closing = new AbortController()
    for (const waits of this.#waits.values()) for (const wait of [...waits]) wait.reject(clusterError('closed'))
  }

  /** The checkpoint of a source of this table changed, or a subscription began or ended. */
  onChange(table: TableName): void {
    const waits = this.#waits.get(tableKey(table))
    if (waits) for (const wait of [...waits]) wait.check()
  }

  /** Some subscriptions began or ended. */
  onManifest(): void {
    for (const waits of this.#waits.values()) for (const wait of [...waits]) wait.check()
  }

  /** Rejects subscription_not_found, not_applied, token_expired, replication_timeout, aborted, closed, mesh_unavailable. */
  async wait(
    { node, timestamp, parts }: Token,
    { timeout, signal }: { timeout: number; signal?: AbortSignal | undefined },
  ): Promise<void> {
    const deadline = new Deadline(this.#options.mesh.timers, { timeout, signal, operation: 'wait for the token' })
    const ended = new AbortController()
    try {
      for (const part of parts) {
        const done =
          node === this.#options.node
            ? this.#checkLocal(part)
            : this.#untilApplied({ node, timestamp, part, relayed: [] }, ended.signal)
        await deadline.limit(done, () =>
          clusterError('replication_timeout', `${part.database}.${part.table} of ${node} is not applied up to it here`),
        )
      }
    } finally {
      ended.abort()
      deadline.cancel()
    }
  }

  /** It was committed here, unless the stream is another one by now. */
  async #checkLocal({ epoch, ...table }: TransactionPosition): Promise<void> {
    const { publisher } = this.#options
    const end = publisher.endOf(table) ?? (await publisher.ensure({ database: table.database, table: table.table }))
    if (end.epoch !== epoch) throw expired(this.#options.node, table)
  }

  #untilApplied(awaited: Omit<Wait, 'resolve' | 'reject' | 'check'>, ended: AbortSignal): Promise<void> {
    const key = tableKey(awaited.part)
    const ofTable = this.#waits.get(key) ?? new Set<Wait>()
    this.#waits.set(key, ofTable)
    return new Promise<void>((resolve, reject) => {
      const end = () => {
        ofTable.delete(wait)
        if (ofTable.size === 0 && this.#waits.get(key) === ofTable) this.#waits.delete(key)
      }
      const wait: Wait = {
        ...awaited,
        resolve: () => {
          end()
          resolve()
        },
        reject: (error) => {
          end()
          reject(error)
        },
        check: () => {
          const outcome = this.#outcome(wait)
          if (outcome === 'applied') wait.resolve()
          else if (outcome !== 'wait') wait.reject(outcome)
        },
      }
      ended.addEventListener('abort', end, { once: true })
      ofTable.add(wait)
      wait.check()
      if (ofTable.has(wait)) void this.#ask(wait, () => ofTable.has(wait))
    })
  }

  #outcome(wait: Wait): Outcome {
    const { node, part, relayed } = wait
    const { index, position } = this.#options
    const sources = index.sourcesOf(part)
    if (sources.length === 0) return clusterError('subscription_not_found', node, `${part.database}.${part.table}`)
    const direct = sources.find((source) => source.node === node)
    if (direct) {
      const current = this.#counted(direct, wait)
      const state = current && !this.#isReused(direct, wait) ? this.#stateIn(current, direct, wait) : 'ahead'
      if (state === 'applied') return 'applied'
      if (state === 'missing' && !this.#isRelayed(wait, sources)) return notApplied(this.#options.node, part)
    }
    if (this.#isRelayed(wait, sources)) return 'applied'
    for (const each of relayed) {
      const current = position(each.source)
      const isThere = current?.epoch === each.epoch && current.sequence >= each.sequence && !current.isCopying
      if (isThere && Object.keys(current.missing).length === 0) return 'applied'
    }
    return 'wait'
  }

  /** A subscription that began behind messages which are gone does not know how many transactions they had. */
  #counted(source: RemoteTable, { part, end }: Wait): AppliedPosition | undefined {
    const current = this.#options.position(source)
    if (!current || !this.#isUncounted(source, part) || end?.epoch !== current.epoch) return current
    return current.sequence < end.sequence ? current : atLeast(current, part.index)
  }

  #isUncounted(source: RemoteTable, { epoch }: TransactionPosition): boolean {
    const checkpoint = this.#options.checkpoint(source)
    return checkpoint?.epoch === epoch && checkpoint.index === undefined
  }

  /** The ranges of another source prove it; nothing of that source is in quarantine or missing, and the rows were not removed since then. */
  #isRelayed({ node, timestamp, part: { epoch, index } }: Wait, sources: readonly RemoteTable[]): boolean {
    return sources.some((source) => {
      if (source.node === node) return false
      const { applied, quarantined, missing } = this.#options.checkpoint(source) ?? {}
      if (this.#options.position(source)?.isEmptied) return false
      return !quarantined && !missing && wasApplied(applied, node, epoch, index, timestamp)
    })
  }

  /** Its number was applied, but for a transaction that the source has lost. */
  #isReused(source: RemoteTable, { timestamp, part: { epoch, index } }: Wait): boolean {
    return isNewer(timestamp, newestAt(this.#options.checkpoint(source)?.applied, source.node, epoch, index))
  }

  #stateIn(current: AppliedPosition, source: RemoteTable, wait: Wait): AppliedState {
    const { epoch, index } = wait.part
    return stateIn(current, epoch, index, this.#isEarlier(source, current, wait))
  }

  /** Undefined: not known. */
  #isEarlier(
    source: RemoteTable,
    { epoch: current }: AppliedPosition,
    { timestamp, part: { epoch, index }, isEarlier: asked }: Wait,
  ): boolean | undefined {
    if (asked?.than === current) return asked.value
    // Ranges of an epoch do not tell: those of a later one may have come from a relaying node.
    const { applied } = this.#options.checkpoint(source) ?? {}
    return epoch !== current && wasApplied(applied, source.node, epoch, index, timestamp) ? true : undefined
  }

  /** Asks other nodes for what the checkpoints do not tell, as long as `isWaiting`. One that does not answer holds up no other one. */
  async #ask(wait: Wait, isWaiting: () => boolean): Promise<void> {
    const { mesh, index } = this.#options
    const { signal } = this.#closing
    const asked = new Set<string>()
    const ask = async (source: RemoteTable) => {
      asked.add(source.node)
      try {
        if (source.node === wait.node) await this.#askSource(wait, source, signal)
        else await this.#askRelay(wait, source, signal)
      } catch {
        // It is asked again.
      }
      asked.delete(source.node)
      if (isWaiting()) wait.check()
    }
    while (isWaiting()) {
      const sources = index.sourcesOf(wait.part)
      const direct = sources.filter(({ node }) => node === wait.node)
      for (const source of direct.length > 0 ? direct : sources) if (!asked.has(source.node)) void ask(source)
      await new Promise<void>((resolve) => mesh.timers.after(ASK_INTERVAL_MS, resolve))
    }
  }

  /**
   * Only if the epoch is another one than that of the position: which of them came first? Or if the running number there is not known: is
   * it the end of the stream?
   */
  async #askSource(wait: Wait, source: RemoteTable, signal: AbortSignal): Promise<void> {
    const { epoch: current } = this.#options.position(source) ?? { epoch: '' }
    const { epoch } = wait.part
    const isKnown = current === epoch ? !this.#isUncounted(source, wait.part) : wait.isEarlier?.than === current
    if (current === '' || isKnown) return
    const stream = await this.#readStream(wait, signal)
    if (!stream || current === epoch) return
    const { epochs, at } = stream
    wait.isEarlier = { than: current, value: at < epochs.findIndex((each) => each.epoch === current) }
  }

  /** The epochs of the stream of the node that committed the transaction, and the place of its epoch among them. Sets `end`. */
  async #readStream(wait: Wait, signal: AbortSignal): Promise<{ epochs: EpochRange[]; at: number } | undefined> {
    const { mesh, requestTimeout: timeout } = this.#options
    const { node, part } = wait
    const { database, table, epoch } = part
    const state = await mesh.streamState({ node, database, table }, { timeout, signal })
    if (!state) return undefined
    const { epochs } = readStreamMetadata(state.description)
    const at = epochs.findIndex((each) => each.epoch === epoch)
    if (at < 0) wait.reject(expired(node, part))
    const sequence = at === epochs.length - 1 ? state.lastSequence : epochs[at]?.last
    wait.end = sequence === undefined ? undefined : { epoch, sequence }
    return at < 0 ? undefined : { epochs, at }
  }

  /** One request at a time to each node, for all that wait. */
  #statusOf(source: RemoteTable, signal: AbortSignal): Promise<TableStatus> {
    const key = sourceKey(source)
    const known = this.#asking.get(key)
    if (known) return known
    const asked = this.#options.statusOf(source, { signal }).finally(() => this.#asking.delete(key))
    this.#asking.set(key, asked)
    return asked
  }

  /** A relaying node that has applied the transaction has it in its own stream. */
  async #askRelay(wait: Wait, source: RemoteTable, signal: AbortSignal): Promise<void> {
    const { epoch, sequence, isPublished, sources } = await this.#statusOf(source, signal)
    const origin = sources.find(({ node }) => node === wait.node)
    const hasIt = origin?.epoch === wait.part.epoch && (await this.#hasRelayed(wait, origin, signal))
    // One that is known is nearer, unless the relaying node has begun a new stream.
    const isKnown = wait.relayed.some((each) => each.source.node === source.node && each.epoch === epoch)
    if (!hasIt || !isPublished || isKnown) return
    const others = wait.relayed.filter((each) => each.source.node !== source.node)
    wait.relayed = [...others, { source, epoch, sequence }]
  }

  async #hasRelayed(
    wait: Wait,
    { index = -1, newest, relayedSequence }: TableSource,
    signal: AbortSignal,
  ): Promise<boolean> {
    if (relayedSequence === undefined) return index >= wait.part.index && !isNewer(wait.timestamp, newest)
    if (!wait.end) await this.#readStream(wait, signal)
    return wait.end !== undefined && relayedSequence >= wait.end.sequence
  }
}

const expired = (node: string, { database, table }: TableName) =>
  clusterError('token_expired', node, `${database}.${table}`)
const notApplied = (node: string, { database, table }: TableName) =>
  clusterError('not_applied', node, `${database}.${table}`)
