// Attributes of remote tables that the local tables lack: they are added to the local table, if the host can do that, and reported.

import { reasonOf } from '../errors.ts'
import type { Host, RemoteTable } from '../host/host.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { TableName } from '../mesh/mesh.ts'
import type { Logger } from '../observe/logger.ts'
import { RetriedTask } from '../util/retried-task.ts'
import type { Timers } from '../util/timers.ts'

export type AddedAttributesOptions = {
  host: Pick<Host, 'describe' | 'alterTable'>
  timers: Timers
  logger: Logger
  /** The table of `node` has attributes that the local one did not have. */
  attributesAdded(table: TableName, node: string, attributes: string[]): void
}

/** Attributes of one local table that have to be added: name to the node that has it. */
type Missing = {
  attributes: Map<string, string>
  task: RetriedTask
  running: Promise<void> | undefined
  failures: number
}

/** None is added for a remote node beyond this number of a table, so that invented ones cannot fill the disk. */
const MAX_ATTRIBUTES = 10_000
/** ms. */
const RETRY_BACKOFF = { first: 1_000, max: 60_000 }

export class AddedAttributes {
  readonly #options: AddedAttributesOptions
  /** By `tableKey`. */
  readonly #missing = new Map<string, Missing>()
  /** By `tableKey`: reported without being added, because the host cannot do that. */
  readonly #reported = new Map<string, Set<string>>()
  #closed = false

  constructor(options: AddedAttributesOptions) {
    this.#options = options
  }

  /**
   * The source has attributes that the local table lacked when it was last described. Resolves when the first attempt to add them has
   * ended; at once while a failed attempt waits for the next one. Never rejects.
   */
  async add(source: RemoteTable, attributes: readonly string[]): Promise<void> {
    if (this.#closed || attributes.length === 0) return
    if (!this.#options.host.alterTable) return this.#reportOnce(source, attributes)
    const missing = this.#missingOf(source)
    for (const name of attributes)
      if (missing.attributes.size < MAX_ATTRIBUTES && !missing.attributes.has(name))
        missing.attributes.set(name, source.node)
    // Failed attempts repeat themselves: the caller must not wait for a database that does not answer.
    if (missing.failures > 0) return
    missing.running ??= missing.task.run().catch(() => {})
    await missing.running
  }

  /** After `close`. */
  reopen(): void {
    this.#closed = false
  }

  close(): void {
    this.#closed = true
    for (const { task } of this.#missing.values()) task.cancel()
    this.#missing.clear()
  }

  #reportOnce({ node, database, table }: RemoteTable, attributes: readonly string[]): void {
    const key = tableKey({ database, table })
    const reported = this.#reported.get(key) ?? new Set()
    this.#reported.set(key, reported)
    const added = attributes.filter((name) => !reported.has(name)).slice(0, MAX_ATTRIBUTES - reported.size)
    for (const name of added) reported.add(name)
    if (added.length > 0) this.#options.attributesAdded({ database, table }, node, added)
  }

  #missingOf({ database, table }: RemoteTable): Missing {
    const name = { database, table }
    const key = tableKey(name)
    const known = this.#missing.get(key)
    if (known) return known
    const task = new RetriedTask({
      work: () => this.#alter(name, missing),
      failed: (error, retryAfterMs) => this.#onFailed(name, missing, error, retryAfterMs),
      backoff: RETRY_BACKOFF,
      timers: this.#options.timers,
    })
    const missing: Missing = { attributes: new Map(), task, running: undefined, failures: 0 }
    this.#missing.set(key, missing)
    return missing
  }

  async #alter(name: TableName, missing: Missing): Promise<void> {
    while (missing.attributes.size > 0) {
      const wanted = [...missing.attributes]
      await this.#alterOnce(name, wanted)
      for (const [attribute] of wanted) missing.attributes.delete(attribute)
    }
    this.#missing.delete(tableKey(name))
  }

  async #alterOnce(
    { database, table }: TableName,
    wanted: readonly [attribute: string, node: string][],
  ): Promise<void> {
    const { host, logger, attributesAdded } = this.#options
    const described = (await host.describe()).find((each) => each.database === database && each.table === table)
    // A dropped table stays so.
    if (!described) return
    const known = new Set(described.attributes)
    const lacking = wanted
      .filter(([attribute]) => !known.has(attribute))
      .slice(0, Math.max(0, MAX_ATTRIBUTES - known.size))
    if (lacking.length === 0) return
    await host.alterTable!({ database, table, attributes: lacking.map(([attribute]) => attribute) })
    for (const node of new Set(lacking.map(([, node]) => node))) {
      const attributes = lacking.filter(([, from]) => from === node).map(([attribute]) => attribute)
      logger.info({ peer: node, database, table, attributes }, 'attributes added to a table')
      attributesAdded({ database, table }, node, attributes)
    }
  }

  #onFailed({ database, table }: TableName, missing: Missing, error: unknown, retryAfterMs: number): void {
    const { logger } = this.#options
    const attributes = [...missing.attributes.keys()]
    const fields = { database, table, attributes, reason: reasonOf(error), retryAfterMs }
    if (missing.failures++ === 0) logger.warn(fields, 'attributes could not be added to a table')
    else logger.debug(fields, 'attributes could not be added to a table again')
  }
}
