// The writes of a message of HarperDB: which of them are applied to which local table, and what else the message contains.

import Type from 'typebox'
import type { PrimaryKey, RemoteTable, Write } from '../../host/host.ts'
import { attributeNames } from '../../util/attribute-names.ts'
import { WireError } from './names.ts'

const KeyType = Type.Union([Type.String(), Type.Number(), Type.BigInt()])
/** One write of a message. HarperDB has more fields. */
export const ChainLinkType = Type.Object({
  operation: Type.String(),
  /** Absent: that of the first write. */
  schema: Type.Optional(Type.String()),
  table: Type.String(),
  /** Those of a delete have no meaning. */
  records: Type.Optional(Type.Array(Type.Unknown())),
  hash_values: Type.Optional(Type.Array(KeyType)),
  record: Type.Optional(Type.Unknown()),
  id: Type.Optional(KeyType),
  /** Only of define_schema. */
  attributes: Type.Optional(Type.Array(Type.Unknown())),
})
export type ChainLink = {
  operation: string
  schema?: string
  table: string
  records?: unknown[]
  hash_values?: PrimaryKey[]
  record?: unknown
  id?: PrimaryKey | undefined
  attributes?: unknown[]
  next?: unknown
}

/** What decoding needs to know of the tables in the database of the source. */
export interface TableLookup {
  /** The primary key of the local table; undefined when the table does not exist here. */
  primaryKeyOf(table: string): string | undefined
  /** Whether the local node subscribes to this table of the source. */
  isSubscribed(table: string): boolean
}

/** What a message contains besides the writes that are applied. */
export type MessageExtras = {
  /** Attributes that HarperDB defined, by table. */
  attributes: Map<string, string[]>
  /** Number of writes to tables that the local node does not subscribe to, by table. */
  notSubscribed: Map<string, number>
  /** Operations that cannot be applied here. */
  unsupported: string[]
}

/** The message writes a subscribed table that does not exist here yet. */
export class MissingTableError extends Error {
  override readonly name = 'MissingTableError'
}

const onlySource = ({ table }: RemoteTable): TableLookup => ({
  primaryKeyOf: () => undefined,
  isSubscribed: (other) => other === table,
})

/** HarperDB's names of operations that write rows. Its patch has the attributes to set, and the key only in `id` or `hash_values`. */
const OPERATIONS: ReadonlyMap<string, Write['operation']> = new Map([
  ['insert', 'insert'],
  ['update', 'update'],
  ['patch', 'update'],
  ['upsert', 'upsert'],
  ['put', 'upsert'],
  ['delete', 'delete'],
])
const DEFINE_SCHEMA = 'define_schema'

/** Throws WireError, and MissingTableError for a subscribed table that `tables` does not know. */
export function resolveChain(
  source: RemoteTable,
  links: readonly ChainLink[],
  tables: TableLookup = onlySource(source),
): MessageExtras & { writes: Write[] } {
  const writes: Write[] = []
  const attributes = new Map<string, string[]>()
  const notSubscribed = new Map<string, number>()
  const unsupported = new Set<string>()
  for (const link of links) {
    const { operation, schema = source.database, table } = link
    if (schema !== source.database)
      throw new WireError(`contains a write to '${schema}.${table}' in a stream of database '${source.database}'`)
    if (table !== source.table && !tables.isSubscribed(table)) {
      notSubscribed.set(table, (notSubscribed.get(table) ?? 0) + rowCount(link))
    } else if (operation === DEFINE_SCHEMA) {
      const names = attributes.get(table) ?? []
      attributes.set(table, names)
      for (const name of attributeNames(link.attributes)) names.push(name)
    } else {
      const kind = OPERATIONS.get(operation)
      if (kind) writes.push(toWrite(source, link, kind, tables))
      else unsupported.add(operation)
    }
  }
  return { writes, attributes, notSubscribed, unsupported: [...unsupported] }
}

function toWrite(source: RemoteTable, link: ChainLink, operation: Write['operation'], tables: TableLookup): Write {
  const { database } = source
  const { table, id, hash_values: ids = id === undefined ? [] : [id] } = link
  const primaryKey = tables.primaryKeyOf(table)
  if (primaryKey === undefined && table !== source.table)
    throw new MissingTableError(`the table '${database}.${table}' does not exist here`)
  if (operation === 'delete') return { operation, database, table, ids }
  const records = link.records ?? (link.record === undefined ? [] : [link.record])
  if (!records.every(isRecord)) throw new WireError('contains an invalid write')
  if (primaryKey === undefined) return { operation, database, table, records }
  const withKey = (record: Record<string, unknown>, index: number) =>
    Object.hasOwn(record, primaryKey) || ids[index] === undefined ? record : { [primaryKey]: ids[index], ...record }
  return { operation, database, table, records: records.map(withKey) }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const rowCount = ({ records, hash_values }: ChainLink): number => (records ?? hash_values ?? [undefined]).length
