// Reads and validates fields of a JSON body. Field names and error texts are HarperDB's.

import type { PrimaryKey } from '../../lib/host/host.ts'
import type { Attributes } from '../../lib/host/merge-row.ts'
import { illFormedString } from '../../lib/util/well-formed.ts'
import { badRequest } from './errors.ts'

export type Body = Record<string, unknown>

/** `database` or `schema`; the default is `data`. */
export const readDatabase = (body: Body): string => readString(body, 'database', 'schema') ?? 'data'

export const readTable = (body: Body): string => required(readString(body, 'table'), 'table')

/** The first of these fields that exists. */
export function readString(body: Body, ...names: string[]): string | undefined {
  const [name, value] = first(body, names)
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw badRequest(`'${name}' must be a string`)
  if (value === '') throw badRequest(`'${name}' is not allowed to be empty`)
  return value
}

export function readRecords(body: Body): Attributes[] {
  const records = readList(body, 'records')
  records.forEach((record, i) => {
    if (!isObject(record)) throw badRequest(`'records[${i}]' must be of type object`)
  })
  // `publish` would reject the transaction after it is committed.
  const text = illFormedString(records)
  if (text !== undefined)
    throw badRequest(`'records' has a string with half of a surrogate pair: ${JSON.stringify(text.slice(0, 200))}`)
  return records as Attributes[]
}

/** `ids` or `hash_values`. */
export function readIds(body: Body): PrimaryKey[] {
  const ids = readList(body, 'ids', 'hash_values')
  ids.forEach((id, i) => {
    if (typeof id !== 'string' && typeof id !== 'number') throw badRequest(`'ids[${i}]' must be a string or a number`)
  })
  return ids as PrimaryKey[]
}

/** `get_attributes`; undefined means all attributes. */
export function readAttributes(body: Body): string[] | undefined {
  if (body.get_attributes === undefined) return undefined
  const names = readList(body, 'get_attributes')
  names.forEach((name, i) => {
    if (typeof name !== 'string') throw badRequest(`'get_attributes[${i}]' must be a string`)
  })
  return names.includes('*') ? undefined : (names as string[])
}

export function readList(body: Body, ...names: string[]): unknown[] {
  const [name, value] = first(body, names)
  if (!Array.isArray(required(value, name))) throw badRequest(`'${name}' must be an array`)
  return value as unknown[]
}

/** The first of these fields that exists, of any type. */
export function readAny(body: Body, ...names: string[]): unknown {
  const [name, value] = first(body, names)
  return required(value, name)
}

export function required<T>(value: T | undefined, name: string): T {
  if (value === undefined) throw badRequest(`'${name}' is required`)
  return value
}

export const isObject = (value: unknown): value is Body =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function first(body: Body, names: string[]): [name: string, value: unknown] {
  const name = names.find((each) => body[each] !== undefined) ?? names[0]!
  return [name, body[name]]
}
