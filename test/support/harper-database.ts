// How HarperDB 4.3 and later reads messages, and what it does with their writes: a later time of a row wins, and an equal one loses.

import { type HarperWrite, harperUnpack } from './harper-messages.ts'
import type { HarperTable } from './harper-node.ts'

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

type Row = { time: number; record?: Record<string, unknown> | undefined }

export class HarperDatabase {
  readonly #tables: HarperTable[]
  readonly #rows = new Map<string, Map<unknown, Row>>()

  constructor(tables: HarperTable[]) {
    this.#tables = tables
  }

  apply(database: string, writes: readonly HarperWrite[], time: number): void {
    for (const { operation, table, id, record } of writes) {
      const known = this.#tables.find((each) => each.database === database && each.table === table)
      if (!known) throw new Error(`table '${database}.${table}' does not exist`)
      const rows = this.#rowsOf(database, table)
      const before = rows.get(id)
      if (before && before.time >= time) continue
      const key = known.primaryKey === undefined ? {} : { [known.primaryKey]: id }
      if (operation === 'delete') rows.set(id, { time })
      else if (operation === 'patch') rows.set(id, { time, record: { ...key, ...before?.record, ...record } })
      else if (operation === 'upsert') rows.set(id, { time, record: { ...record } })
    }
  }

  define(database: string, table: string, names: readonly string[]): void {
    const known = this.#tables.find((each) => each.database === database && each.table === table)
    for (const name of names) if (known && !known.attributes.includes(name)) known.attributes.push(name)
  }

  contents(database: string, table: string): Record<string, unknown>[] {
    const rows = [...this.#rowsOf(database, table)].flatMap(([id, { record }]) => (record ? [{ id, record }] : []))
    return rows.sort((a, b) => (String(a.id) < String(b.id) ? -1 : 1)).map(({ record }) => record)
  }

  #rowsOf(database: string, table: string): Map<unknown, Row> {
    const key = JSON.stringify([database, table])
    const rows = this.#rows.get(key) ?? new Map<unknown, Row>()
    this.#rows.set(key, rows)
    return rows
  }
}
