// The tables of a simulated HarperDB 4.3 or later, and how it reads messages: it throws at what it does not expect.

import { type HarperWrite, harperUnpack } from './harper-messages.ts'
import { type HarperRecord, type HarperTableAnswer, type HarperTableOptions, HarperTableRows } from './harper-rows.ts'

type Link = {
  operation: string
  table: string
  id?: unknown
  record?: object
  next?: Link
  hash_values?: unknown
  records?: unknown
}
type Body = Omit<Link, 'hash_values' | 'records'> & {
  schema: string
  hash_values?: unknown[]
  records?: (object | undefined)[]
  attributes?: { name: string; attribute: string; indexed: boolean }[]
  __origin: { timestamp: number; node_name: string; user: string | null }
}
export type HarperMessage = {
  database: string
  table: string
  timestamp: number
  writes: HarperWrite[] | { attributes: string[] }
}

const operations: Record<string, HarperWrite['operation']> = {
  insert: 'upsert',
  update: 'upsert',
  upsert: 'upsert',
  put: 'upsert',
  patch: 'patch',
  delete: 'delete',
}

function writeOf(operation: string, table: string, id: unknown, record: object | undefined): HarperWrite {
  const known = operations[operation]
  if (!known) throw new Error(`unknown operation '${operation}'`)
  if (id === undefined || id === null) throw new Error(`a ${operation} in '${table}' has no id`)
  if (known !== 'delete' && (typeof record !== 'object' || record === null)) throw new Error('a write has no record')
  return { operation: known, table, id, record }
}

/** Throws where HarperDB throws. */
export function readHarperMessage(data: Uint8Array): HarperMessage {
  const body = harperUnpack(data) as Body
  const { operation, schema: database, table, records, hash_values: ids = [], attributes, __origin } = body
  if (typeof __origin.timestamp !== 'number' || !__origin.node_name) throw new Error('a message has no origin')
  if (operation === 'define_schema') {
    const names = attributes!.map(({ name }) => name)
    return { database, table, timestamp: __origin.timestamp, writes: { attributes: names } }
  }
  const writes = (records ?? ids).map((record, index) => writeOf(operation, table, ids[index], record as object))
  for (let link = body.next; link; link = link.next) {
    if (link.records !== undefined || link.hash_values !== undefined) throw new Error('a further write has lists')
    writes.push(writeOf(link.operation, link.table, link.id, link.record))
  }
  return { database, table, timestamp: __origin.timestamp, writes }
}

export class HarperDatabase {
  readonly tables: HarperTableRows[]

  constructor(tables: readonly HarperTableOptions[]) {
    this.tables = tables.map((each) => new HarperTableRows(each))
  }

  find(database: string, table: string): HarperTableRows | undefined {
    return this.tables.find((each) => each.database === database && each.table === table)
  }

  ensure(options: HarperTableOptions): void {
    if (!this.find(options.database, options.table)) this.tables.push(new HarperTableRows(options))
  }

  apply(database: string, writes: readonly HarperWrite[], time: number): void {
    for (const { operation, table, id, record } of writes) {
      const rows = this.find(database, table)
      if (!rows) throw new Error(`table '${database}.${table}' does not exist`)
      if (operation === 'delete') rows.delete(id, time)
      else if (operation === 'patch' || operation === 'upsert')
        rows.put(id, { ...record } as HarperRecord, time, operation === 'patch')
    }
  }

  /** The answer to `describe_all`. */
  describe(): Record<string, Record<string, HarperTableAnswer>> {
    const databases: Record<string, Record<string, HarperTableAnswer>> = {}
    for (const each of this.tables) {
      databases[each.database] ??= {}
      databases[each.database]![each.table] = each.describe()
    }
    return databases
  }

  /** What HarperDB does with a message of another node. */
  ingest({ database, table, writes, timestamp }: HarperMessage): void {
    if (Array.isArray(writes)) this.apply(database, writes, timestamp)
    else this.find(database, table)?.define(writes.attributes)
  }
}
