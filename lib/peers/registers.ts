// The revision of each subscription: last-writer-wins registers, each held by the two nodes of the subscription. The
// configuration file holds the values; the revision file beside the leaf's store holds the revisions and what was removed.

import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import type { Timestamp } from '../host/host.ts'
import { wallTimeOf } from '../host/hybrid-clock.ts'
import { type Manifest, tableKey } from '../manifest/manifest.ts'
import type { ManifestStore } from '../manifest/store.ts'
import {
  emptyFields,
  fieldSchemas,
  optionalFields,
  pickFields,
  requiredFields,
  type Subscription,
  sameFields,
} from '../manifest/subscription.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { writeFileAtomic } from '../util/atomic-file.ts'
import { isLater, readableVersions, versionText } from '../util/format-version.ts'
import { BegunSubscriptions } from './begun-subscriptions.ts'

/** Each timestamp is higher than every revision resumed before. */
type RevisionClock = { timestamp(): Timestamp; resume(revision: Timestamp): void }

/**
 * `removed`: the subscription was removed at that revision. The revision '' is lower than any other. `publishSince` and
 * `subscribeSince`: since when each direction is on, in ms since 1970: where a side without a position begins to read.
 */
export type Register = Subscription & {
  readonly removed: boolean
  readonly revision: Timestamp
  readonly publishSince?: number | undefined
  readonly subscribeSince?: number | undefined
}

/**
 * Version of the revision file, in its field `v`. It stands for all state that the node stores, the checkpoints in the database included: a
 * later version is noticed here, before anything is read or changed.
 *
 * 1: `node`, `firstNode`, `nodes` (rows of registers by node), `begun` (tables of subscriptions with a checkpoint, by node).
 */
export const STATE_VERSION = 1
const READABLE = readableVersions(STATE_VERSION)

/** A row of the revision file: the values of a register in the order of `columns`. */
const columns = [
  'database',
  'table',
  ...requiredFields,
  'removed',
  'revision',
  ...optionalFields,
  'publishSince',
  'subscribeSince',
] as const
/** `node`: the name of the local node. `firstNode`: its first name, which stays. */
const fileSchema = Compile(
  Type.Object({
    node: Type.Optional(Type.String()),
    firstNode: Type.Optional(Type.String()),
    nodes: Type.Record(Type.String(), Type.Array(Type.Array(Type.Unknown()))),
    begun: Type.Optional(Type.Record(Type.String(), Type.Array(Type.Tuple([Type.String(), Type.String()])))),
  }),
)
const registerSchema = Compile(
  Type.Object({
    database: Type.String(),
    table: Type.String(),
    ...fieldSchemas,
    removed: Type.Boolean(),
    revision: Type.String(),
    publishSince: Type.Optional(Type.Number()),
    subscribeSince: Type.Optional(Type.Number()),
  }),
)

/** ms of the system's time until the subscriptions that have begun are written. */
const SAVE_DELAY_MS = 500

/** JSON writes an unset value as null. */
const toRow = (register: Register): unknown[] => columns.map((column) => register[column])

function fromRow(row: readonly unknown[]): Register {
  const register = Object.fromEntries(
    columns.map((column, index) => [column, row[index] ?? undefined]).filter(([, value]) => value !== undefined),
  )
  if (!registerSchema.Check(register)) throw new Error('unexpected content')
  return register
}

/** By node. */
type ChangedTables = ReadonlyMap<string, readonly TableName[]>

/** A direction that stays on keeps its time. */
function withTimes(register: Register, now: number, before: Register | undefined): Register {
  const since = (isOn: boolean, given: number | undefined, known: number | undefined) =>
    isOn ? (given ?? known ?? now) : undefined
  return {
    ...register,
    publishSince: since(register.publish, register.publishSince, before?.publishSince),
    subscribeSince: since(register.subscribe, register.subscribeSince, before?.subscribeSince),
  }
}

export const removedRegister = ({ database, table }: TableName, revision: Timestamp = ''): Register => ({
  database,
  table,
  ...emptyFields,
  removed: true,
  revision,
})

export const sameValue = (a: Omit<Register, 'revision'>, b: Omit<Register, 'revision'>): boolean =>
  a.removed === b.removed && sameFields(a, b)

export class Registers {
  /** The subscriptions that have stored a checkpoint. Local: not part of the registers that nodes compare. */
  readonly begun = new BegunSubscriptions(
    ({ node, ...table }) => {
      const register = this.get(node, table)
      return register !== undefined && !register.removed && register.subscribe
    },
    () => this.#saveSoon(),
  )
  readonly #path: string | undefined
  readonly #clock: RevisionClock
  readonly #logger: Logger
  /** ms since 1970. */
  readonly #now: () => number
  /** Name of the local node. */
  readonly #node: string
  /** As in the file; undefined if it has none. */
  #firstNode: string | undefined
  /** Subscriptions that were edited while the node was down. */
  #changedWhileDown: ChangedTables = new Map()
  readonly #nodes = new Map<string, Map<string, Register>>()
  #size = 0
  /** The manifest of the last `sync`. */
  #syncedManifest: Manifest | undefined
  #writing: Promise<void> | undefined
  #dirty = false
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
    timeNow: () => number = Date.now,
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
   * without a negotiation.
   */
  subscribe(
    store: Pick<ManifestStore, 'listen'>,
    changedLocally: (node: string, tables: readonly TableName[]) => void,
  ): void {
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
    ofNode.set(tableKey(register), withTimes(register, this.#now(), ofNode.get(tableKey(register))))
    this.#size += ofNode.size - before
    if (register.removed || !register.subscribe)
      this.begun.delete({ node, database: register.database, table: register.table })
    this.#save()
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
      for (const each of added) put(name, toRegister(each))
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
      for (const [node, rows] of Object.entries(value.nodes)) for (const row of rows) this.set(node, fromRow(row))
      for (const [node, tables] of Object.entries(value.begun ?? {}))
        for (const [database, table] of tables) this.begun.add({ node, database, table })
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
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined
    })
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
      try {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 })
        await writeFileAtomic(
          this.#path,
          JSON.stringify({ v: STATE_VERSION, node: this.#node, firstNode: this.firstNode, nodes, begun: this.begun }),
        )
      } catch (error) {
        this.#logger.error({ file: this.#path, reason: reasonOf(error) }, 'revision file not written')
      }
    }
  }
}

const toRegister = (subscription: Subscription): Register => ({
  database: subscription.database,
  table: subscription.table,
  ...pickFields(subscription),
  removed: false,
  revision: '',
})
