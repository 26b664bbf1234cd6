// The database of a node while its process does not run: a copy of it, and the loss of its checkpoints.

import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Database } from '../host/database.ts'
import { incidentsFile } from './incidents.ts'
import type { NodeHandle } from './node-handle.ts'
import { type Commit, DATABASE, isOwn, originOf, TABLES } from './writes.ts'

const directoryOf = ({ directory }: NodeHandle) => join(directory, 'database')

async function withDatabase<T>(node: NodeHandle, work: (database: Database) => T | Promise<T>): Promise<T> {
  const database = await Database.open(directoryOf(node))
  try {
    return await work(database)
  } finally {
    await database.close()
  }
}

/** The local commits of a node, by table. */
const commitsOf = (node: NodeHandle) =>
  withDatabase(node, (database) => {
    const own = ({ id }: Commit) => isOwn(id) && originOf(id) === node.name
    return new Map(
      TABLES.map((table) => [table, ([...database.scan(DATABASE, table)] as unknown as Commit[]).filter(own)] as const),
    )
  })

/** A copy of the database, and of the list of incidents, which is part of it. */
export class Backup {
  readonly #node: NodeHandle
  readonly #files: readonly (readonly [file: string, copy: string])[]

  private constructor(node: NodeHandle) {
    this.#node = node
    const copyOf = (file: string) => [file, `${file}.copy`] as const
    this.#files = [copyOf(directoryOf(node)), copyOf(incidentsFile(node.directory))]
  }

  /** Copies the database of a node that does not run. */
  static async of(node: NodeHandle): Promise<Backup> {
    const backup = new Backup(node)
    for (const [file, copy] of backup.#files) await copyFiles(file, copy)
    return backup
  }

  /**
   * Replaces the database of the stopped node by the copy. Resolves with the local commits that are undone by that, by table, and with
   * the ids of the transactions in the outbox of the copy.
   */
  async restore(): Promise<{ undone: Map<string, Commit[]>; unconfirmed: string[] }> {
    const before = await commitsOf(this.#node)
    for (const [file, copy] of this.#files) {
      await copyFiles(copy, file)
      await rm(copy, { recursive: true, force: true })
    }
    const after = await commitsOf(this.#node)
    const undone = new Map(
      [...before].map(([table, commits]) => {
        const kept = new Set(after.get(table)!.map(({ id }) => id))
        return [table, commits.filter(({ id }) => !kept.has(id))]
      }),
    )
    const unconfirmed = await withDatabase(this.#node, async (database) => {
      const ids: string[] = []
      for await (const { id } of database.outbox.read()) ids.push(id)
      return ids
    })
    return { undone, unconfirmed }
  }
}

/** Makes `to` equal to `from`; both may be missing. */
async function copyFiles(from: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true })
  await cp(from, to, { recursive: true }).catch((error) => {
    if (error.code !== 'ENOENT') throw error
  })
}

/** Deletes every checkpoint of a node that does not run. */
export const deleteCheckpoints = (node: NodeHandle, peers: readonly NodeHandle[]): Promise<void> =>
  withDatabase(node, async (database) => {
    for (const table of TABLES)
      for (const { clusterName } of peers)
        await database.deleteCheckpoint({ node: clusterName, database: DATABASE, table })
  })
