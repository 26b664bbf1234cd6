// What was agreed on last about each subscription, and when: last-writer-wins registers, each held by two nodes, kept beside
// the leaf's store. The file that people read holds the values; this holds the revisions, and what was removed.

import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import Type from 'typebox'
import { Compile } from 'typebox/schema'
import { reasonOf } from '../errors.ts'
import type { Timestamp } from '../host/host.ts'
import { type Manifest, tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { writeFileAtomic } from '../util/atomic-file.ts'

/** What gives revisions, each higher than those merged before. */
type RevisionClock = { timestamp(): Timestamp; merge(revision: Timestamp): void }

/** `removed`: there is no subscription, since then. A revision of '' is older than any other. */
export type Register = TableName & { publish: boolean; subscribe: boolean; removed: boolean; revision: Timestamp }

const FileType = Type.Object({
  nodes: Type.Record(
    Type.String(),
    Type.Array(
      Type.Tuple([Type.String(), Type.String(), Type.Boolean(), Type.Boolean(), Type.Boolean(), Type.String()]),
    ),
  ),
})
const fileSchema = Compile(FileType)

export class Registers {
  readonly #path: string | undefined
  readonly #logger: Logger
  readonly #nodes = new Map<string, Map<string, Register>>()
  #size = 0
  /** The manifest that was taken over last. */
  #syncedManifest: Manifest | undefined
  #writing: Promise<void> | undefined
  #dirty = false

  private constructor(path: string | undefined, logger: Logger) {
    this.#path = path
    this.#logger = logger
  }

  /**
   * Reads what was kept, and takes every difference to the manifest for an edit made while we were down, now. Without a
   * file (lost, or never there) everything in the manifest has revision '': the other nodes know better. Without a path
   * nothing is kept.
   */
  static async open(
    path: string | undefined,
    manifest: Manifest,
    clock: RevisionClock,
    logger: Logger,
  ): Promise<Registers> {
    const registers = new Registers(path, logger)
    const known = await registers.#read()
    // Some came from nodes whose clocks are ahead of ours: what is changed from now on is newer all the same.
    for (const node of registers.nodes()) for (const { revision } of registers.forNode(node)) clock.merge(revision)
    const now = clock.timestamp()
    registers.sync(manifest, () => (known ? now : ''))
    return registers
  }

  /** Every node of which something is known, removed ones too. */
  nodes(): string[] {
    return [...this.#nodes.keys()]
  }

  /** How many there are, of all nodes, removed ones too. */
  get size(): number {
    return this.#size
  }

  /** Makes room for so many more, so that there are at most `max`: by forgetting what was removed, the oldest first. False when that is not enough. */
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
    ofNode.set(tableKey(register), register)
    this.#size += ofNode.size - before
    this.#save()
  }

  /**
   * Takes over what the manifest holds; what is the same object as the last time is not looked at. Returns the nodes of
   * which something differed.
   */
  sync(manifest: Manifest, revisionOf: (node: string, table: TableName) => Timestamp): string[] {
    const changed = new Set<string>()
    const put = (node: string, register: Omit<Register, 'revision'>) => {
      const known = this.get(node, register)
      if (known && sameValue(known, register)) return
      const { database, table, publish, subscribe, removed } = register
      this.set(node, { database, table, publish, subscribe, removed, revision: revisionOf(node, register) })
      changed.add(node)
    }
    const before = new Map<string, readonly TableName[]>(
      this.#syncedManifest?.nodes.map(({ name, subscriptions }) => [name, subscriptions]) ??
        this.nodes().map((node) => [node, this.forNode(node).filter(({ removed }) => !removed)]),
    )
    const end = (node: string, tables: readonly TableName[]) => {
      for (const { database, table } of tables)
        put(node, { database, table, publish: false, subscribe: false, removed: true })
    }
    for (const { name, subscriptions } of manifest.nodes) {
      const old = before.get(name)
      before.delete(name)
      if (old === subscriptions) continue
      const remaining = new Set(old)
      const added = subscriptions.filter((each) => !remaining.delete(each))
      for (const each of added) put(name, { ...each, removed: false })
      const keys = new Set(added.map(tableKey))
      end(
        name,
        [...remaining].filter((each) => !keys.has(tableKey(each))),
      )
    }
    for (const [node, tables] of before) end(node, tables)
    this.#syncedManifest = manifest
    return [...changed]
  }

  /** Resolves when everything so far is on disk, or could not be written (which is logged). */
  async flush(): Promise<void> {
    await this.#writing
  }

  async #read(): Promise<boolean> {
    if (this.#path === undefined) return false
    try {
      const value: unknown = JSON.parse(await readFile(this.#path, 'utf8'))
      if (!fileSchema.Check(value)) throw new Error('it is not what was written')
      for (const [node, registers] of Object.entries(value.nodes))
        for (const [database, table, publish, subscribe, removed, revision] of registers)
          this.set(node, { database, table, publish, subscribe, removed, revision })
      return true
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#logger.warn(
          { file: this.#path, reason: reasonOf(error) },
          'the revisions are lost; the other nodes know them',
        )
      return false
    }
  }

  #save(): void {
    this.#dirty = true
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined
    })
  }

  /** Once for all that changes in one turn. A death before that makes of the change an edit made while we were down: the same. */
  async #write(): Promise<void> {
    await Promise.resolve()
    while (this.#dirty && this.#path !== undefined) {
      this.#dirty = false
      const nodes = Object.fromEntries(
        [...this.#nodes].map(([node, registers]) => [node, [...registers.values()].map(toRow)]),
      )
      try {
        await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 })
        await writeFileAtomic(this.#path, JSON.stringify({ nodes }))
      } catch (error) {
        this.#logger.error({ file: this.#path, reason: reasonOf(error) }, 'the revisions could not be written')
      }
    }
  }
}

const toRow = ({ database, table, publish, subscribe, removed, revision }: Register) => [
  database,
  table,
  publish,
  subscribe,
  removed,
  revision,
]

export const sameValue = (a: Omit<Register, 'revision'>, b: Omit<Register, 'revision'>): boolean =>
  a.publish === b.publish && a.subscribe === b.subscribe && a.removed === b.removed
