// Answers to describe_all: the tables of a node, in HarperDB's form.

import Type from 'typebox'
import { Compile } from 'typebox/schema'
import type { TableDescription } from '../host/host.ts'
import type { TableName } from '../mesh/mesh.ts'
import { attributeNames } from '../util/attribute-names.ts'

const TableType = Type.Object({
  /** HarperDB has tables without one: they cannot be replicated. */
  hash_attribute: Type.String(),
  attributes: Type.Optional(Type.Array(Type.Unknown())),
  /** Not in HarperDB: the node answers requests about the rows of its tables. */
  serves_rows: Type.Optional(Type.Boolean()),
})
type TableMessage = Type.Static<typeof TableType>
/** By database, then by table. */
export type TablesMessage = Record<string, Record<string, TableMessage>>

const tableValidator = Compile(TableType)

/** HarperDB's answer to describe_all: database, table, description. */
export function toTablesMessage(tables: TableDescription[], servesRows: boolean): TablesMessage {
  const databases: TablesMessage = Object.create(null)
  for (const { database, table, primaryKey, attributes } of tables) {
    databases[database] ??= Object.create(null) as TablesMessage[string]
    databases[database]![table] = {
      schema: database,
      name: table,
      hash_attribute: primaryKey,
      attributes: withKey(attributes, primaryKey).map((attribute) => ({
        attribute,
        ...(attribute === primaryKey && { is_primary_key: true }),
      })),
      ...(servesRows ? { serves_rows: true } : {}),
    } as TableMessage
  }
  return databases
}

/** A table of a remote node. `servesRows`: the node answers requests about its rows. */
export type RemoteDescription = TableDescription & { servesRows: boolean }

/** Leaves out tables without a valid description, like those of HarperDB without a primary key. Undefined for another value. */
export function readTables(message: unknown): RemoteDescription[] | undefined {
  if (!isObject(message)) return undefined
  return Object.entries(message).flatMap(([database, ofDatabase]) =>
    Object.entries(isObject(ofDatabase) ? ofDatabase : {}).flatMap(([table, description]) =>
      tableValidator.Check(description) ? [toRemoteDescription({ database, table }, description as TableMessage)] : [],
    ),
  )
}

const isObject = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const toRemoteDescription = (
  name: TableName,
  { hash_attribute, attributes, serves_rows = false }: TableMessage,
): RemoteDescription => ({
  ...name,
  primaryKey: hash_attribute,
  attributes: attributeNames(attributes),
  servesRows: serves_rows,
})

/** HarperDB finds the primary key among the attributes. */
export const withKey = (attributes: readonly string[], primaryKey: string): readonly string[] =>
  attributes.includes(primaryKey) ? attributes : [primaryKey, ...attributes]
