// Operations that create, drop and describe databases and tables. Names and texts are HarperDB's.

import { HostError } from './errors.ts'
import type { Operation, Operations } from './operations.ts'
import { type Body, isObject, readDatabase, readList, readString, readTable, required } from './request.ts'
import type { Table } from './tables.ts'

const createDatabase: Operation = async (database, body) => {
  const name = readDatabase(body)
  await database.createDatabase(name, true)
  return { message: `database '${name}' successfully created` }
}

const dropDatabase: Operation = async (database, body) => {
  // No default: a request without a name must not drop the database `data`.
  const name = required(readString(body, 'database', 'schema'), 'database')
  await database.dropDatabase(name)
  return { message: `successfully deleted '${name}'` }
}

const describeDatabase: Operation = async (database, body) => {
  const name = readDatabase(body)
  if (!database.databases().includes(name)) throw new HostError(404, `database '${name}' does not exist`)
  return describe(database.tables(name))
}

/** For super users only. */
export const schemaOperations: Operations = {
  create_schema: createDatabase,
  create_database: createDatabase,
  drop_schema: dropDatabase,
  drop_database: dropDatabase,

  async create_table(database, body) {
    const [name, table] = [readDatabase(body), readTable(body)]
    const primaryKey = required(readString(body, 'primary_key', 'hash_attribute'), 'primary_key')
    await database.createTable({ database: name, table, primaryKey, attributes: readNames(body) }, true)
    return { message: `table '${name}.${table}' successfully created.` }
  },

  async drop_table(database, body) {
    const [name, table] = [readDatabase(body), readTable(body)]
    await database.dropTable(name, table)
    return { message: `successfully deleted table '${name}.${table}'` }
  },
}

/** For all users. */
export const describeOperations: Operations = {
  async describe_all(database) {
    return Object.fromEntries(database.databases().map((name) => [name, describe(database.tables(name))]))
  },
  describe_schema: describeDatabase,
  describe_database: describeDatabase,
  async describe_table(database, body) {
    return describeTable(database.table(readDatabase(body), readTable(body)))
  },
}

const describe = (tables: Table[]) => Object.fromEntries(tables.map((table) => [table.table, describeTable(table)]))

const describeTable = ({ database, table, primaryKey, attributes, count }: Table) => ({
  schema: database,
  name: table,
  hash_attribute: primaryKey,
  schema_defined: false,
  attributes: attributes.map((attribute) => ({ attribute, ...(attribute === primaryKey && { is_primary_key: true }) })),
  record_count: count,
})

/** `attributes: [{ name }]`, optional: records add their attributes by themselves. */
function readNames(body: Body): string[] {
  if (body.attributes === undefined) return []
  return readList(body, 'attributes').map((attribute, i) =>
    required(isObject(attribute) ? readString(attribute, 'name', 'attribute') : undefined, `attributes[${i}].name`),
  )
}
