// The values of a record as text that is the same on every host, so that two nodes can compare them.

import { keyIdentity } from './key-identity.ts'

/** Values below are not compared. Messages between nodes have fewer levels. */
const MAX_DEPTH = 100

/**
 * Equal for records with the same values, in any order of their attributes. Hosts store values in different ways, so integers are alike
 * whatever their type, -0 is 0, and an attribute without a value (null or undefined) counts as absent. `primaryKey` is left out: the key
 * of a row is compared for itself. The encoding is a part of the protocol between nodes: each part has a type, and a length or an end.
 */
export const recordText = (record: Readonly<Record<string, unknown>>, primaryKey: string): string =>
  attributesText(record, 0, primaryKey)

function attributesText(record: Readonly<Record<string, unknown>>, depth: number, left?: string): string {
  let text = '{'
  for (const name of Object.keys(record).sort()) {
    const value = record[name]
    if (name !== left && value !== null && value !== undefined)
      text += `${name.length} ${name}${valueText(value, depth + 1)}`
  }
  return `${text}}`
}

function valueText(value: unknown, depth: number): string {
  switch (typeof value) {
    case 'string':
      return `s${value.length} ${value}`
    case 'number':
    case 'bigint':
      return `${keyIdentity(value)},`
    case 'boolean':
      return value ? 'T' : 'F'
    case 'object':
      return value === null ? 'n' : depth > MAX_DEPTH ? 'x' : objectText(value, depth)
    default:
      return 'n'
  }
}

function objectText(value: object, depth: number): string {
  if (value instanceof Date) return `d${value.getTime()},`
  if (ArrayBuffer.isView(value))
    return `b${value.byteLength} ${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1')}`
  if (value instanceof ArrayBuffer) return objectText(new Uint8Array(value), depth)
  if (value instanceof Set) return `u${listText([...value], depth)}`
  if (value instanceof Map) return `m${listText([...value].flat(), depth)}`
  if (Array.isArray(value)) return listText(value, depth)
  return attributesText(value as Record<string, unknown>, depth)
}

function listText(list: readonly unknown[], depth: number): string {
  let text = '['
  for (const each of list) text += valueText(each, depth + 1)
  return `${text}]`
}
