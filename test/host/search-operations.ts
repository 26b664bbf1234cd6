// search_by_id, search_by_value, search_by_conditions for pages in the order of the keys, and two forms of SELECT. Without indexes.

import type { PrimaryKey } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { badRequest } from './errors.ts'
import type { Operation, Operations } from './operations.ts'
import {
  type Body,
  isObject,
  readAny,
  readAttributes,
  readDatabase,
  readIds,
  readList,
  readString,
  readTable,
  required,
} from './request.ts'

const searchById: Operation = async (database, body) => {
  const [name, table, ids, attributes] = [readDatabase(body), readTable(body), readIds(body), readAttributes(body)]
  const found: Attributes[] = []
  for (const id of ids) {
    const record = database.get(name, table, id)
    if (record) found.push(pick(record, attributes))
  }
  return found
}

export const searchOperations: Operations = {
  search_by_id: searchById,
  search_by_hash: searchById,

  async search_by_value(database, body) {
    const attribute = required(readString(body, 'search_attribute', 'attribute'), 'search_attribute')
    const matches = matcher(readAny(body, 'search_value', 'value'))
    const attributes = readAttributes(body)
    const limit = readLimit(body)
    const found: Attributes[] = []
    for (const record of database.scan(readDatabase(body), readTable(body))) {
      if (found.length === limit) break
      const value = Object.hasOwn(record, attribute) ? record[attribute] : undefined
      if (value !== undefined && value !== null && matches(value)) found.push(pick(record, attributes))
    }
    return found
  },

  async search_by_conditions(database, body) {
    const [name, table] = [readDatabase(body), readTable(body)]
    const after = readAfter(body, database.table(name, table).primaryKey)
    const rows = database.readRecords(name, table, after, readLimit(body) ?? Number.MAX_SAFE_INTEGER)
    const attributes = readAttributes(body)
    return rows.map((record) => pick(record, attributes))
  },

  async sql(database, body) {
    const { columns, name, table } = parseSelect(required(readString(body, 'sql'), 'sql'))
    const count = /^count ?\( ?\* ?\)(?: as (\w+))?$/i.exec(columns)
    if (count) return [{ [count[1] ?? 'COUNT(*)']: database.table(name, table).count }]
    const attributes = columns === '*' ? undefined : columns.split(',').map((column) => identifier(column.trim()))
    return Array.from(database.scan(name, table), (record) => pick(record, attributes))
  },
}

function readLimit(body: Body): number | undefined {
  const { limit } = body
  if (limit === undefined) return undefined
  if (typeof limit !== 'number' || !Number.isInteger(limit) || limit < 1)
    throw badRequest("'limit' must be an integer, 1 or more")
  return limit
}

/** The key after which a page begins. */
function readAfter(body: Body, primaryKey: string): PrimaryKey {
  const [condition, ...more] = readList(body, 'conditions')
  const { search_attribute, search_type, search_value } = isObject(condition) ? condition : {}
  if (more.length > 0 || search_type !== 'greater_than' || search_attribute !== primaryKey)
    throw badRequest(`'conditions' must be one 'greater_than' of the primary key '${primaryKey}'`)
  if (typeof search_value !== 'string' && typeof search_value !== 'number')
    throw badRequest("'conditions[0].search_value' must be a string or a number")
  return search_value
}

/** Attributes that the record lacks are null. */
const pick = (record: Attributes, attributes: string[] | undefined): Attributes =>
  attributes
    ? Object.fromEntries(attributes.map((name) => [name, Object.hasOwn(record, name) ? record[name] : null]))
    : record

/** Equality of the JSON forms. A string may start or end with the wildcard `*`. */
function matcher(expected: unknown): (value: unknown) => boolean {
  if (typeof expected !== 'string' || !expected.includes('*')) {
    const text = jsonForm(expected)
    return (value) => jsonForm(value) === text
  }
  const open = { start: expected.startsWith('*'), end: expected.endsWith('*') }
  const text = expected.slice(open.start ? 1 : 0, open.end ? -1 : undefined)
  if (open.start && open.end) return (value) => String(value).includes(text)
  if (open.start) return (value) => String(value).endsWith(text)
  if (open.end) return (value) => String(value).startsWith(text)
  return (value) => value === expected
}

/** 5 and 5n have the same JSON form, '5' has a different one. */
const jsonForm = (value: unknown): string | undefined =>
  typeof value === 'bigint'
    ? String(value)
    : (JSON.stringify(value, (_, each) => (typeof each === 'bigint' ? String(each) : each)) ?? undefined)

function parseSelect(sql: string): { columns: string; name: string; table: string } {
  // Blanks are normalized first, so that no input makes the pattern below backtrack for long.
  const text = sql.trim().replace(/;$/, '').trim().split(/\s+/).join(' ')
  const parts = /^select (.+) from (\S+)$/i.exec(text)
  const path = parts?.[2]?.split('.') ?? []
  if (!parts || path.length > 2) {
    throw badRequest('Unsupported SQL. Supported: SELECT count(*) AS c FROM db.table; SELECT a, b FROM db.table')
  }
  const [name, table] = path.length === 2 ? path : ['data', path[0]]
  return { columns: parts[1]!, name: identifier(name!), table: identifier(table!) }
}

/** A name, plain or in backticks or double quotes. */
function identifier(text: string): string {
  const name = /^(?:`([^`]+)`|"([^"]+)"|([\w$-]+))$/.exec(text)
  if (!name)
    throw badRequest(`'${text.slice(0, 100)}' in the SQL is not a valid name of a database, table or attribute`)
  return (name[1] ?? name[2] ?? name[3])!
}
