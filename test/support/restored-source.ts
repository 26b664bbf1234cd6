// A publisher whose process dies, whose database goes back to a copy and whose streams lose messages; and a subscriber to its tables.
// In memory, without managers, so that a test can run many histories.

import { setTimeout as delay } from 'node:timers/promises'
import type { ApplyOutcome, Batch, PublishConfirmation, RemoteTable, Transaction } from '../../lib/host/host.ts'
import { HybridClock, makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { makeManifest } from '../../lib/manifest/manifest.ts'
import { type Mesh, MeshError } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Publisher } from '../../lib/replication/publish/publisher.ts'
import { parseStreamMetadata } from '../../lib/replication/stream-metadata.ts'
import type { Gap as SubscriberGap } from '../../lib/replication/subscribe/cursor.ts'
import type { Quarantine } from '../../lib/replication/subscribe/quarantine.ts'
import { Replicator } from '../../lib/replication/subscribe/replicator.ts'
import { Frame } from '../../lib/replication/wire/frame.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { Begun, sourceTables } from './begun.ts'
import { eventually } from './cluster.ts'
import { insert, MemoryHost } from './memory-host.ts'
import { copyDatabase } from './memory-host-copy.ts'
import { overriding } from './overriding.ts'
import { subscriberEvents } from './subscriber-events.ts'

export const tables = ['dog', 'cat'] as const
export type Table = (typeof tables)[number]
/** Where a transaction was sent to; it is nowhere else if it was stored. */
type Place = { id: string; table: string; epoch: string; index: number }
/** `epoch`, and `next` after it. `seen`: the number of places when it was reported. */
type Gap = { table: string; epoch: string; next: string; seen: number } & SubscriberGap

const LIMITS = { maxInFlight: 20, maxInFlightBytes: 1e6, window: 5 }
const TIMEOUT = { timeout: 2_000 }

/** Confirmations may be held: they are stored when they are released, and lost when the process dies. */
class SourceHost extends MemoryHost {
  holdsConfirmations = false
  #held: { resolve(): void; reject(error: Error): void }[] = []

  override async confirmPublished(confirmation: PublishConfirmation): Promise<void> {
    // The beginning of an epoch is not held, because the writer waits for it.
    if (this.holdsConfirmations && confirmation.upTo)
      await new Promise<void>((resolve, reject) => this.#held.push({ resolve, reject }))
    return super.confirmPublished(confirmation)
  }

  release(error?: Error): void {
    this.holdsConfirmations = false
    for (const { resolve, reject } of this.#held.splice(0)) error ? reject(error) : resolve()
  }
}

/** Knows the epochs in which a subscription was before and after its last step. */
class SubscriberHost extends MemoryHost {
  readonly lastStep = new Map<string, [before: string, after: string]>()

  override async apply(batch: Batch): Promise<ApplyOutcome> {
    const before = (await this.loadCheckpoint(batch.source))?.epoch ?? ''
    this.lastStep.set(batch.source.table, [before, batch.checkpoint.epoch])
    return super.apply(batch)
  }
}

export class RestoredSource {
  readonly network = new MemoryNetwork()
  readonly host = new SourceHost(tables.map((table) => ['dev', table]))
  readonly subscriberHost = new SubscriberHost(tables.map((table) => ['dev', table]))
  readonly places: Place[] = []
  readonly gaps: Gap[] = []
  /** What the database has committed, by id. */
  committed: { id: string; tables: readonly Table[] }[] = []
  /** The last steps took something from a stream or the database back, so that transactions may be sent again. */
  mayRepeat = false
  publisher!: Publisher
  readonly #quarantine: Quarantine
  #replicator!: Replicator
  #mesh!: Mesh
  #lostAcknowledgements = 0
  #count = 0
  #copy: (() => void) | undefined

  constructor(quarantine: Quarantine) {
    this.#quarantine = quarantine
  }

  async open(): Promise<void> {
    await this.#openSource()
    const mesh = this.network.mesh()
    await mesh.open('node2', { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
    const gap = ({ table }: RemoteTable, gap: SubscriberGap) => {
      const [epoch = '', next = ''] = this.subscriberHost.lastStep.get(table) ?? []
      this.gaps.push({ table, epoch, next, seen: this.places.length, ...gap })
    }
    this.#replicator = new Replicator({
      mesh,
      host: this.subscriberHost,
      node: 'node2',
      clock: new HybridClock('node2', 300_000),
      quarantine: this.#quarantine,
      events: subscriberEvents({ gap }),
      logger: silentLogger,
      relayEnabled: false,
      relay() {},
      begun: new Begun(),
      sourceTables,
      maxApplyAttempts: 0,
      progress: () => () => {},
      requestTimeout: 1_000,
      maxBatch: 10,
      maxBatchBytes: 1e6,
    })
    for (const table of tables) {
      await this.publisher.ensure({ database: 'dev', table })
      await this.#replicator.setStart({ node: 'node1', database: 'dev', table })
    }
    const subscriptions = tables.map((table) => ({ database: 'dev', table, publish: false, subscribe: true }))
    await this.#replicator.reconcile(makeManifest({ nodes: [{ name: 'node1', subscriptions }] }))
  }

  async close(): Promise<void> {
    this.host.release()
    await this.#replicator.close()
    await this.network.close()
    await this.publisher.close()
  }

  /** One transaction, with a row in each of these tables. */
  commit(tables: readonly Table[]): void {
    const id = `t${this.#count++}`
    const timestamp = makeTimestamp(Date.now(), this.#count, 'node1')
    const transaction: Transaction = { id, timestamp, writes: tables.map((table) => insert(table, { id })) }
    this.host.commitAs(transaction)
    this.committed.push({ id, tables })
    this.publisher.publish(transaction).catch(() => {})
  }

  /** The next messages are stored, and the writer gets errors instead of acknowledgements. */
  loseAcknowledgements(count: number): void {
    this.#lostAcknowledgements = count
  }

  /** A limit of the stream deletes its oldest messages. */
  async expire(table: Table, keep: number): Promise<void> {
    this.mayRepeat = true
    await this.#mesh.purgeStream({ database: 'dev', table }, { keep }).catch(() => {})
  }

  async purge(table: Table, keep: number): Promise<void> {
    this.mayRepeat = true
    await this.publisher.purge({ database: 'dev', table }, { keep }).catch(() => {})
  }

  /** The process dies, with the servers; `back` returns the database to the last copy, `wipe` deletes the store. */
  async crash({ back = false, wipe = false }: { back?: boolean; wipe?: boolean } = {}): Promise<void> {
    const goBack = copyDatabase(this.host)
    this.network.crash('node1')
    this.host.release(new Error('the process died'))
    await this.publisher.close()
    await this.#mesh.close()
    goBack()
    if (back) this.#copy?.()
    if (wipe) this.network.wipeDisk('node1')
    this.mayRepeat ||= back || wipe
    await this.#openSource()
    this.#replicator.onPeerReturned('node1', { restarted: true, silence: 0 })
  }

  copyDatabase(): void {
    const goBack = copyDatabase(this.host)
    const committed = [...this.committed]
    this.#copy = () => {
      goBack()
      this.committed = [...committed]
    }
  }

  async pause(): Promise<void> {
    await delay(1)
  }

  /** Without further faults, everything that is in the outbox arrives. */
  async quiet(): Promise<void> {
    this.#lostAcknowledgements = 0
    this.host.release()
    this.network.heal()
    this.#replicator.onPeerReturned('node1', { restarted: true, silence: 0 })
    let reason = ''
    await eventually(
      () => `the subscriber is at the end: ${reason}`,
      async () => {
        this.#replicator.onPeerPositions('node1', this.publisher.recentPositions())
        reason = `outbox of ${this.host.outbox.length}`
        return (
          this.host.outbox.length === 0 && (await Promise.all(tables.map((each) => this.#isAtEnd(each)))).every(Boolean)
        )
      },
      20_000,
    )
  }

  async #isAtEnd(table: Table): Promise<boolean> {
    const source = { node: 'node1', database: 'dev', table }
    const state = await this.#mesh.streamState(source, TIMEOUT)
    if (!state) {
      await this.publisher.ensure(source)
      return false
    }
    const { epoch, sequence, index } = (await this.subscriberHost.loadCheckpoint(source))!
    if (epoch !== parseStreamMetadata(state.description).epochs.at(-1)?.epoch || sequence !== state.lastSequence)
      return false
    const last = await this.#mesh.messageAt(source, sequence, TIMEOUT)
    return last === undefined || Frame.read(last).last === index
  }

  async #openSource(): Promise<void> {
    const real = this.network.mesh()
    const append: Mesh['append'] = (table, message, expected, done) => {
      const frame = Frame.read({ ...message, sequence: (expected?.sequence ?? 0) + 1, time: 0, delivery: 0 })
      for (let offset = 0; offset < frame.count; offset++) {
        const index = frame.first! + offset
        this.places.push({ id: frame.idAt(offset), table: table.table, epoch: frame.epoch, index })
      }
      const isLost = this.#lostAcknowledgements > 0 && this.#lostAcknowledgements-- > 0
      real.append(table, message, expected, isLost ? () => done(new MeshError('timeout'), 0) : done)
    }
    this.#mesh = overriding(real, { append })
    await real.open('node1', { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
    this.publisher = new Publisher({
      ...LIMITS,
      mesh: this.#mesh,
      host: this.host,
      node: 'node1',
      logger: silentLogger,
      timeout: 10_000,
      requestTimeout: 1_000,
    })
    this.publisher.resume()
  }
}
