// A source with rows and a stream, and a node that subscribes to it: replication and copies without managers. The test delivers the
// stream, and may hold or refuse requests for pages.

import { join } from 'node:path'
import type { TestContext } from 'node:test'
import type {
  CopyReason,
  KeyedRow,
  PrimaryKey,
  RemoteTable,
  Timestamp,
  VoidedRange,
  Write,
} from '../../lib/host/host.ts'
import { HybridClock } from '../../lib/host/hybrid-clock.ts'
import { emptyManifest, type Manifest, makeManifest } from '../../lib/manifest/manifest.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import type { RowRequests } from '../../lib/replication/copy/row-requests.ts'
import { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Replicator } from '../../lib/replication/subscribe/replicator.ts'
import type { ReplicatorOptions } from '../../lib/replication/subscribe/replicator-options.ts'
import type { SubscriptionStatus } from '../../lib/replication/subscribe/subscription-status.ts'
import { Begun, sourceTables } from './begun.ts'
import { eventually, temporaryDirectory } from './cluster.ts'
import { MemoryHost } from './memory-host.ts'
import { RemoteStream, type ScriptedReader } from './remote-stream.ts'
import { subscriberEvents } from './subscriber-events.ts'

const dog = { database: 'dev', table: 'dog' }

/** Answers requests for rows from the database of a source, page by page. */
export class SourceRows implements RowRequests {
  readonly #hosts: ReadonlyMap<string, MemoryHost>
  pageRows = 100
  isServing: boolean | undefined = true
  /** Runs before each page is read. */
  beforePage: ((after: PrimaryKey | undefined, signal: AbortSignal) => void | Promise<void>) | undefined
  /** The keys after which pages were requested. */
  readonly requested: (PrimaryKey | undefined)[] = []

  constructor(hosts: ReadonlyMap<string, MemoryHost>) {
    this.#hosts = hosts
  }

  serves(): boolean | undefined {
    return this.isServing
  }

  async page({ node, ...table }: RemoteTable, after: PrimaryKey | undefined, { signal }: { signal: AbortSignal }) {
    this.requested.push(after)
    await this.beforePage?.(after, signal)
    const host = this.#hosts.get(node)!
    const rows = await host.readRows(table, { after, limit: this.pageRows })
    const horizon = await host.horizon(table)
    return { rows, ...(horizon !== undefined && { horizon }) }
  }

  async arrivedPage(...request: Parameters<RowRequests['page']>) {
    const page = await this.page(...request)
    return { last: page.rows.at(-1)?.key, read: () => page }
  }

  async rows({ node, ...table }: RemoteTable, keys: readonly PrimaryKey[]): Promise<KeyedRow[]> {
    return this.#hosts.get(node)!.readRows(table, { keys })
  }
}

/** A remote node: what it commits is in its database and in its stream. */
export class CopySource {
  readonly name: string
  readonly host = new MemoryHost([['dev', 'dog']])
  readonly stream = new RemoteStream()
  readonly clock: HybridClock
  #given = new Map<ScriptedReader, number>()

  constructor(name: string) {
    this.name = name
    this.clock = new HybridClock(name, 300_000)
  }

  get source(): RemoteTable {
    return { node: this.name, ...dog }
  }

  /** Commits without a message: as before clustering, or a message that is lost. */
  commitOnly(...writes: Write[]): string {
    const timestamp = this.clock.timestamp()
    this.host.commitAs({ id: `${this.name}:${timestamp}`, timestamp, writes })
    return timestamp
  }

  commit(...writes: Write[]): void {
    this.#send(this.commitOnly(...writes), writes)
  }

  /** Commits the row again, whose timestamp was wrong. */
  restamp(id: string, wrong: Timestamp, write: Write): void {
    this.host.rows.get(JSON.stringify(['dev', 'dog']))!.delete(JSON.stringify([id]))
    this.#send(this.commitOnly(write), [write], { node: this.name, from: wrong, to: wrong })
  }

  #send(timestamp: Timestamp, writes: Write[], voids?: VoidedRange): void {
    const transaction = { id: `${this.name}:${timestamp}`, timestamp, writes, ...(voids && { voids }) }
    this.#entries.push(this.stream.entry(++this.stream.last, transaction))
    this.deliver()
  }

  readonly #entries: ReturnType<RemoteStream['entry']>[] = []

  /** The messages before this sequence expire. */
  expire(first: number): void {
    this.stream.first = first
  }

  /** Gives every reader what it has not got yet. */
  deliver(): void {
    for (const reader of this.stream.readers.filter(({ lost }) => !lost)) {
      const from = Math.max(this.#given.get(reader) ?? reader.from, this.stream.first)
      const entries = this.#entries.filter(({ sequence }) => sequence >= from)
      this.#given.set(reader, this.stream.last + 1)
      if (entries.length > 0) reader.give(...entries)
    }
  }
}

export type CopyEvent = { node: string; reason: CopyReason; rows: number }

export class CopyPair {
  readonly sources: CopySource[]
  readonly rows: SourceRows
  readonly host: MemoryHost
  readonly clock: HybridClock
  readonly begun = new Begun()
  readonly copied: CopyEvent[] = []
  /** `[node, reason, repair]`. */
  readonly gaps: [string, string, boolean][] = []
  readonly states: string[] = []
  readonly refused: number[] = []
  readonly progress: [done: number, total: number | undefined][] = []
  replicator!: Replicator
  #now: () => number
  readonly #quarantine: Quarantine
  readonly #options: Partial<ReplicatorOptions>

  private constructor(
    quarantine: Quarantine,
    host: MemoryHost,
    names: readonly string[],
    now: () => number,
    options: Partial<ReplicatorOptions>,
  ) {
    this.#quarantine = quarantine
    this.#now = now
    this.#options = options
    this.host = host
    this.sources = names.map((name) => new CopySource(name))
    this.rows = new SourceRows(new Map(this.sources.map((each) => [each.name, each.host])))
    this.clock = new HybridClock('here', 300_000, now)
    this.open()
  }

  static async open(
    test: TestContext,
    {
      host = new MemoryHost([['dev', 'dog']]),
      names = ['node1'],
      now = Date.now,
      ...options
    }: Partial<ReplicatorOptions> & { host?: MemoryHost; names?: readonly string[]; now?: () => number } = {},
  ): Promise<CopyPair> {
    const [directory, remove] = await temporaryDirectory()
    const quarantine = await Quarantine.open({
      directory: join(directory, 'q'),
      maxMessages: 10,
      maxBytes: 1e6,
      logger: silentLogger,
    })
    const pair = new CopyPair(quarantine, host, names, now, options)
    test.after(async () => {
      await pair.replicator.close()
      await remove()
    })
    return pair
  }

  get source(): CopySource {
    return this.sources[0]!
  }

  /** Another process on the same database. */
  open(): void {
    const meshOf = (node: string) => this.sources.find(({ name }) => name === node)!.stream.mesh
    const mesh = {
      timers: { ...meshOf(this.sources[0]!.name).timers, now: this.#now },
      streamState: (source: RemoteTable, ...rest: [never]) => meshOf(source.node).streamState(source, ...rest),
      sequenceAt: async (source: RemoteTable, time: number) =>
        await meshOf(source.node).sequenceAt(source, time, {} as never),
      read: async (source: RemoteTable, ...rest: [never, never]) => {
        const reader = await meshOf(source.node).read(source, ...rest)
        setImmediate(() => this.sources.find(({ name }) => name === source.node)!.deliver())
        return reader
      },
    }
    this.replicator = new Replicator({
      mesh: mesh as never,
      host: this.host,
      node: 'here',
      clock: this.clock,
      quarantine: this.#quarantine,
      events: subscriberEvents({
        state: (_, state) => void this.states.push(state),
        gap: ({ node }, { reason, isRepaired }) => void this.gaps.push([node, reason, isRepaired]),
        copied: ({ node }, { reason, rows }) => void this.copied.push({ node, reason, rows }),
        refusedOld: (_, writes) => void this.refused.push(writes),
        copyProgress: () => (done, total) => void this.progress.push([done, total]),
      }),
      logger: silentLogger,
      relayEnabled: false,
      relay() {},
      begun: this.begun,
      sourceTables,
      progress: () => () => {},
      requestTimeout: 10_000,
      maxBatch: 50,
      maxBatchBytes: 1e6,
      maxApplyAttempts: 0,
      rows: this.rows,
      ...this.#options,
    })
  }

  #manifest(sources: readonly CopySource[]): Manifest {
    const subscriptions = [{ ...dog, publish: false, subscribe: true }]
    return makeManifest({ nodes: sources.map(({ name }) => ({ name, subscriptions })) })
  }

  /** As an operation does: the start is stored, then the manifest is committed. */
  async subscribe(...sources: CopySource[]): Promise<void> {
    const chosen = sources.length > 0 ? sources : this.sources
    for (const { source } of chosen) await this.replicator.setStart(source)
    await this.reconcile(...chosen)
  }

  async reconcile(...sources: CopySource[]): Promise<void> {
    await this.replicator.reconcile(this.#manifest(sources.length > 0 ? sources : this.sources))
  }

  async unsubscribe(): Promise<void> {
    await this.replicator.reconcile(emptyManifest)
  }

  /** The process ends and another one opens; nothing is stored at the end. */
  async restart(...sources: CopySource[]): Promise<void> {
    await this.replicator.close()
    this.open()
    await this.reconcile(...sources)
  }

  status({ source } = this.source): SubscriptionStatus {
    return this.replicator.statusOf(source)!
  }

  checkpoint({ source } = this.source) {
    return this.host.loadCheckpoint(source)
  }

  /** Every subscription has read and copied everything. */
  live(...sources: CopySource[]): Promise<unknown> {
    return eventually(
      () => `live: ${JSON.stringify(this.replicator.status())}`,
      () =>
        (sources.length > 0 ? sources : this.sources).every(
          (each) => this.status(each)?.state === 'live' && this.status(each).appliedSequence === each.stream.last,
        ),
    )
  }

  copies(count: number): Promise<unknown> {
    return eventually(
      () => `${count} copies: ${JSON.stringify([this.copied, this.replicator.status()])}`,
      () => this.copied.length >= count,
    )
  }

  /** Rows of the table here and at the source, with their timestamps. */
  rowsOf(host: MemoryHost): Map<string, unknown> {
    return new Map([...(host.rows.get(JSON.stringify(['dev', 'dog'])) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
