// The revision of each subscription: last-writer-wins registers, each held by the two nodes of the subscription. The
// configuration file holds the values; the revision file beside the leaf's store holds the revisions and what was removed.

import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ClusterError, clusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import type { RemoteTable, Timestamp } from '../host/host.ts'
import { wallTimeOf } from '../host/hybrid-clock.ts'
import { type Manifest, tableKey } from '../manifest/manifest.ts'
import { type StartFields, type StartRequest, startRequest } from '../manifest/start-request.ts'
import type { ManifestStore } from '../manifest/store.ts'
import { pickFields } from '../manifest/subscription.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { writeFileAtomic } from '../util/atomic-file.ts'
import { isLater, readableVersions, versionText } from '../util/format-version.ts'
import { clearTimeout, setTimeout, systemTimers } from '../util/timers.ts'
import { BegunSubscriptions } from './begun-subscriptions.ts'
import { PausedSubscriptions } from './paused-subscriptions.ts'
import {
  fileSchema,
  fromRow,
  type Register,
  removedRegister,
  sameValue,
  toRow,
  withStart,
  withTimes,
} from './register.ts'

/** Each timestamp is higher than every revision resumed before. */
type RevisionClock = { timestamp(): Timestamp; resume(revision: Timestamp): void }

/**
 * Version of the revision file, in its field `v`. It stands for all state that the node stores, the checkpoints in the database included: a
 * later version is noticed here, before anything is read or changed.
 *
 * 1: `node`, `firstNode`, `earlierNodes` (names that the node had, oldest first), `nodes` (rows of registers by node), `begun` (tables of
 * subscriptions with a checkpoint, and the last request that each has begun, by node), `paused` (tables of subscriptions that are paused, by node).
 */
export const STATE_VERSION = 1
const READABLE = readableVersions(STATE_VERSION)

/** ms of the system's time until the subscriptions that have begun are written. */
const SAVE_DELAY_MS = 500
const MAX_EARLIER_NAMES = 16

type TableRequest = TableName & StartFields & { readonly node: string }
const keyOf = (node: string, table: TableName) => JSON.stringify([node, tableKey(table)])

/** By node. */
type ChangedTables = ReadonlyMap<string, readonly TableName[]>

export class Registers {
  /** The subscriptions that have stored a checkpoint. Local: not part of the registers that nodes compare. */
  readonly begun = new BegunSubscriptions(
    ({ node, ...table }) => {
      const register = this.get(node, table)
      return register !== undefined && !register.removed && register.subscribe
    },
    () => this.#saveSoon(),
  )
  /** The subscriptions that are paused here. Local too. */
  readonly paused = new PausedSubscriptions(() => this.#save())
  readonly #path: string | undefined
  readonly #clock: RevisionClock
  readonly #logger: Logger
  /** ms since 1970. */
  readonly #now: () => number
  /** Name of the local node. */
  readonly #node: string
  /** As in the file; undefined if it has none. */
  #firstNode: string | undefined
  #earlierNames: readonly string[] = []
  /** Subscriptions that were edited while the node was down. */
  #changedWhileDown: ChangedTables = new Map()
  readonly #nodes = new Map<string, Map<string, Register>>()
  #size = 0
  /** The manifest of the last `sync`. */
  #syncedManifest: Manifest | undefined
  #writing: Promise<void> | undefined
  #dirty = false
  /** Why the last write failed. */
  #fault: { reason: unknown } | undefined
  /** Requests that belong to the next change of their subscriptions, by `keyOf`. */
  #planned = new Map<string, TableRequest>()
  /** A running subscription is to begin a request. */
  #startRequested: ((source: RemoteTable) => void) | undefined
  #delayedSave: NodeJS.Timeout | undefined

  private constructor(path: string | undefined, node: string, clock: RevisionClock, logger: Logger, now: () => number) {
    this.#path = path
    this.#node = node
    this.#clock = clock
    this.#logger = logger
    this.#now = now
  }

  /**
   * Reads the revision file. A difference between it and the manifest is an edit made while the node was down: it gets a new
   * revision. Without a readable file all subscriptions of the manifest get the revision '', so that the peers' revisions win.
   * Without a path nothing is stored. Rejects version_unsupported.
   */
  static async open(
    path: string | undefined,
    manifest: Manifest,
    clock: RevisionClock,
    logger: Logger,
    timeNow: () => number = systemTimers.now,
  ): Promise<Registers> {
    const registers = new Registers(path, manifest.nodeName, clock, logger, timeNow)
    const wasRead = await registers.#read()
    // A wrong clock may have set some revisions: local changes must get higher ones.
    for (const node of registers.nodes()) for (const { revision } of registers.forNode(node)) clock.resume(revision)
    const now = clock.timestamp()
    const changed = registers.#sync(manifest, () => (wasRead ? now : ''))
    if (wasRead) registers.#changedWhileDown = changed
    await registers.#keepFirstNode()
    return registers
  }

  /**
   * Records the revisions of every later commit. `changedLocally` receives the subscriptions of each node that were changed here
   * without a negotiation; `startRequested` those with a request that has not begun.
   */
  subscribe(
    store: Pick<ManifestStore, 'listen'>,
    changedLocally: (node: string, tables: readonly TableName[]) => void,
    startRequested: (source: RemoteTable) => void,
  ): void {
    this.#startRequested = startRequested
    store.listen({
      committed: ({ current, revisions }) => {
        const changed = this.#sync(current, (table) => revisions?.get(tableKey(table)) ?? this.#clock.timestamp())
        if (!revisions) for (const [node, tables] of changed) changedLocally(node, tables)
      },
    })
  }

  /** Subscriptions, by node, that were edited while the local node was down: no remote node knows of that. */
  get changedWhileDown(): ChangedTables {
    return this.#changedWhileDown
  }

  /** Name of the local node when clustering was first enabled with this state. */
  get firstNode(): string {
    return this.#firstNode ?? this.#node
  }

  /** The names that the local node had before: timestamps of its rows have them. */
  get earlierNames(): readonly string[] {
    return this.#earlierNames
  }

  /** On disk before the database uses it for its rows. */
  async #keepFirstNode(): Promise<void> {
    if (this.#firstNode !== undefined) return
    this.#firstNode = this.#node
    this.#save()
    await this.#writing
  }

  /** Every node with registers, including removed ones. */
  nodes(): string[] {
    return [...this.#nodes.keys()]
  }

  /** Number of registers of all nodes, including removed ones. */
  get size(): number {
    return this.#size
  }

  /**
   * Makes room for `count` more registers within `max`: deletes removed registers, the oldest first. False, and nothing is
   * deleted, when that is not enough.
   */
  reserve(count: number, max: number): boolean {
    if (this.#size + count <= max) return true
    const removable = [...this.#nodes].flatMap(([node, registers]) =>
      [...registers.values()].filter(({ removed }) => removed).map((register) => ({ node, register })),
    )
    if (this.#size - removable.length + count > max) return false
    removable.sort((a, b) => (a.register.revision < b.register.revision ? -1 : 1))
    for (const { node, register } of removable.slice(0, this.#size + count - max)) this.#delete(node, register)
    this.#save()
    return true
  }

  #delete(node: string, table: TableName): void {
    const ofNode = this.#nodes.get(node)
    if (!ofNode?.delete(tableKey(table))) return
    this.begun.delete({ ...table, node })
    this.paused.delete({ ...table, node })
    this.#size--
    if (ofNode.size === 0) this.#nodes.delete(node)
  }

  forNode(node: string): Register[] {
    return [...(this.#nodes.get(node)?.values() ?? [])]
  }

  get(node: string, table: TableName): Register | undefined {
    return this.#nodes.get(node)?.get(tableKey(table))
  }

  set(node: string, register: Register): void {
    const ofNode = this.#nodes.get(node) ?? new Map<string, Register>()
    this.#nodes.set(node, ofNode)
    const before = ofNode.size
    const known = ofNode.get(tableKey(register))
    const start = register.start ?? this.#plannedStart(node, register)
    ofNode.set(tableKey(register), withStart({ ...withTimes(register, this.#now(), known), start }, known))
    this.#size += ofNode.size - before
    const source = { node, database: register.database, table: register.table }
    if (register.removed || !register.subscribe) {
      this.begun.delete(source)
      this.paused.delete(source)
    }
    this.#save()
    if (start && this.openStart(source)) this.#startRequested?.(source)
  }

  #plannedStart(node: string, register: Register): StartRequest | undefined {
    const planned = register.removed ? undefined : this.#planned.get(keyOf(node, register))
    if (!planned) return undefined
    this.#planned.delete(keyOf(node, register))
    return startRequest(register.revision, planned)
  }

  /**
   * `commit` changes subscriptions which their nodes agree to later: these requests belong to the changes. A subscription that it does
   * not change gets a new revision with its request.
   */
  async withRequests(requests: readonly TableRequest[], commit: () => Promise<unknown>): Promise<void> {
    const asked = requests.filter(({ startTime, copy }) => startTime !== undefined || copy !== undefined)
    this.#planned = new Map(asked.map((each) => [keyOf(each.node, each), each]))
    try {
      await commit()
      for (const each of [...this.#planned.values()]) {
        const register = this.get(each.node, each)
        if (register && !register.removed)
          this.set(each.node, { ...register, start: undefined, revision: this.#clock.timestamp() })
      }
    } finally {
      this.#planned = new Map()
    }
    if (asked.length > 0) await this.flush()
  }

  /** The request that this subscription has not begun yet. */
  openStart(source: RemoteTable): StartRequest | undefined {
    const { subscribe, start } = this.get(source.node, source) ?? {}
    return subscribe && start && start.id > this.begun.requestOf(source) ? start : undefined
  }

  /** Gives revisions later than `limit`, in ms since 1970, a new one. Returns the nodes with changed registers, each as often as it has some. */
  restamp(limit: number): string[] {
    const later = this.nodes().flatMap((node) =>
      this.forNode(node)
        .filter(({ revision }) => wallTimeOf(revision) > limit)
        .map((register) => ({ node, register })),
    )
    for (const { node, register } of later) this.set(node, { ...register, revision: this.#clock.timestamp() })
    return later.map(({ node }) => node)
  }

  /** Records the subscriptions that differ from the last synced manifest. Returns those that changed. */
  #sync(manifest: Manifest, revisionOf: (table: TableName) => Timestamp): ChangedTables {
    const changed = new Map<string, TableName[]>()
    const put = (node: string, value: Register) => {
      const known = this.get(node, value)
      if (known && sameValue(known, value)) return
      this.set(node, { ...value, revision: revisionOf(value) })
      changed.set(node, [...(changed.get(node) ?? []), value])
    }
    const before = new Map<string, readonly TableName[]>(
      this.#syncedManifest?.nodes.map(({ name, subscriptions }) => [name, subscriptions]) ??
        this.nodes().map((node) => [node, this.forNode(node).filter(({ removed }) => !removed)]),
    )
    for (const { name, subscriptions } of manifest.nodes) {
      const old = before.get(name)
      before.delete(name)
      if (old === subscriptions) continue
      const remaining = new Set(old)
      const added = subscriptions.filter((each) => !remaining.delete(each))
      for (const each of added)
        put(name, { database: each.database, table: each.table, ...pickFields(each), removed: false, revision: '' })
      const keys = new Set(added.map(tableKey))
      for (const each of remaining) if (!keys.has(tableKey(each))) put(name, removedRegister(each))
    }
    for (const [node, tables] of before) for (const each of tables) put(node, removedRegister(each))
    this.#syncedManifest = manifest
    return changed
  }

  /** Resolves when all changes so far are on disk, or writing them failed (which is logged). */
  async flush(): Promise<void> {
    if (this.#delayedSave) this.#save()
    await this.#writing
  }

  /** Resolves when all changes so far are on disk. Rejects state_unwritable. */
  async store(): Promise<void> {
    if (this.#fault) this.#save()
    await this.flush()
    if (this.#fault)
      throw clusterErrorFrom(this.#fault.reason, 'state_unwritable', this.#path!, reasonOf(this.#fault.reason))
  }

  async #read(): Promise<boolean> {
    if (this.#path === undefined) return false
    try {
      const value: unknown = JSON.parse(await readFile(this.#path, 'utf8'))
      const version = (value as { v?: unknown } | null)?.v
      if (isLater(version, READABLE))
        throw clusterError('version_unsupported', this.#path, version, versionText(READABLE))
      if (!fileSchema.Check(value)) throw new Error('unexpected content')
      if (value.node !== undefined && value.node !== this.#node)
        this.#logger.warn({ previousName: value.node }, 'the node was renamed')
      this.#firstNode = value.firstNode ?? value.node
      const names = new Set([value.firstNode, ...(value.earlierNodes ?? []), value.node])
      this.#earlierNames = [...names]
        .filter((name): name is string => name !== undefined && name !== this.#node)
        .slice(-MAX_EARLIER_NAMES)
      for (const [node, rows] of Object.entries(value.nodes)) for (const row of rows) this.set(node, fromRow(row))
      for (const [node, tables] of Object.entries(value.begun ?? {}))
        for (const [database, table, request] of tables)
          this.begun.add({ node, database: database!, table: table! }, request)
      for (const [node, tables] of Object.entries(value.paused ?? {}))
        for (const [database, table] of tables) this.paused.add({ node, database, table })
      return true
    } catch (error) {
      if (error instanceof ClusterError) throw error
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#logger.warn(
          { file: this.#path, reason: reasonOf(error) },
          'revision file unreadable; recovering from peers',
        )
      return false
    }
  }

  /** Many subscriptions begin at once. After a crash before the write, the next start of the subscription notes it. */
  #saveSoon(): void {
    this.#delayedSave ??= setTimeout(() => this.#save(), SAVE_DELAY_MS).unref()
  }

  #save(): void {
    clearTimeout(this.#delayedSave)
    this.#delayedSave = undefined
    this.#dirty = true
    this.#writing ??= this.#write()
  }

  /**
   * One write for all changes of a turn of the event loop. After a crash before the write, the change is taken for an edit made
   * while the node was down, which has the same effect.
   */
  async #write(): Promise<void> {
    await Promise.resolve()
    while (this.#dirty && this.#path !== undefined) {
      this.#dirty = false
      const nodes = Object.fromEntries(
        [...this.#nodes].map(([node, registers]) => [node, [...registers.values()].map(toRow)]),
      )
      const { begun, paused, earlierNames: earlierNodes, firstNode } = this
      try {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 })
        await writeFileAtomic(
          this.#path,
          JSON.stringify({ v: STATE_VERSION, node: this.#node, firstNode, earlierNodes, nodes, begun, paused }),
        )
        this.#fault = undefined
      } catch (error) {
        this.#fault = { reason: error }
        this.#logger.error({ file: this.#path, reason: reasonOf(error) }, 'revision file not written')
      }
    }
    // In the turn of the last check: a change right after it begins another write.
    this.#writing = undefined
  }
}
