// Which nodes a table is published to, and which it is subscribed from, by the manifest.

import type { RemoteTable, TableName } from '../../host/host.ts'
import { type Manifest, tableKey } from '../../manifest/manifest.ts'

type Entry = { name: TableName; subscribers: string[]; sources: RemoteTable[] }
const none: Pick<Entry, 'subscribers' | 'sources'> = { subscribers: [], sources: [] }

export class TableIndex {
  readonly #manifest: () => Manifest
  #nodes: Manifest['nodes'] = []
  #byTable = new Map<string, Entry>()

  constructor(manifest: () => Manifest) {
    this.#manifest = manifest
  }

  /** The nodes that subscribe to the local table. */
  subscribersOf(table: TableName): readonly string[] {
    return this.#find(table).subscribers
  }

  /** The local tables that at least one node subscribes to. */
  publishedTables(): TableName[] {
    this.#refresh()
    return [...this.#byTable.values()].flatMap(({ name, subscribers }) => (subscribers.length > 0 ? [name] : []))
  }

  /** The remote tables that the local one is subscribed from. */
  sourcesOf(table: TableName): readonly RemoteTable[] {
    return this.#find(table).sources
  }

  #find(table: TableName): Pick<Entry, 'subscribers' | 'sources'> {
    this.#refresh()
    return this.#byTable.get(tableKey(table)) ?? none
  }

  #refresh(): void {
    const { nodes } = this.#manifest()
    if (nodes !== this.#nodes) this.#build(nodes)
  }

  #build(nodes: Manifest['nodes']): void {
    this.#nodes = nodes
    this.#byTable = new Map()
    for (const { name: node, subscriptions } of nodes)
      for (const { database, table, publish, subscribe } of subscriptions) {
        const key = tableKey({ database, table })
        const entry = this.#byTable.get(key) ?? { name: { database, table }, subscribers: [], sources: [] }
        this.#byTable.set(key, entry)
        if (publish) entry.subscribers.push(node)
        if (subscribe) entry.sources.push({ node, database, table })
      }
  }
}
