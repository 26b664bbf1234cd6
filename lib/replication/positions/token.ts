// Tokens: the position of a transaction as a short opaque text, which a client carries from one node to another.

import { clusterError } from '../../errors.ts'
import type { Timestamp } from '../../host/host.ts'
import type { TransactionPosition } from '../publish/publisher.ts'

/**
 * Version of tokens, their first field. A node reads this one.
 *
 * 1: base64url of the JSON array `[version, node, timestamp, [database, table, epoch, index]...]`.
 */
const TOKEN_VERSION = 1
const MAX_TOKEN_LENGTH = 4_096

/** `node`: the one that committed the transaction. `timestamp`: that of the transaction; a restored node uses its running numbers again. */
export type Token = { node: string; timestamp: Timestamp; parts: readonly TransactionPosition[] }

/** Throws token_too_large. */
export function encodeToken({ node, timestamp, parts }: Token): string {
  const rows = parts.map(({ database, table, epoch, index }) => [database, table, epoch, index])
  const text = Buffer.from(JSON.stringify([TOKEN_VERSION, node, timestamp, ...rows])).toString('base64url')
  if (text.length > MAX_TOKEN_LENGTH) throw clusterError('token_too_large', text.length, MAX_TOKEN_LENGTH)
  return text
}

/** Throws token_invalid. */
export function decodeToken(text: unknown): Token {
  if (typeof text !== 'string' || text.length > MAX_TOKEN_LENGTH)
    throw clusterError('token_invalid', `it must be a string of at most ${MAX_TOKEN_LENGTH} characters`)
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(text, 'base64url').toString())
  } catch {
    throw clusterError('token_invalid', 'it is unreadable')
  }
  if (!Array.isArray(value)) throw clusterError('token_invalid', 'it is unreadable')
  const [version, node, timestamp, ...rows] = value as unknown[]
  if (version !== TOKEN_VERSION)
    throw clusterError('token_invalid', `it has version ${String(version)}, this node reads version ${TOKEN_VERSION}`)
  if (typeof node !== 'string' || typeof timestamp !== 'string' || !rows.every(isRow))
    throw clusterError('token_invalid', 'it is unreadable')
  return { node, timestamp, parts: rows.map(([database, table, epoch, index]) => ({ database, table, epoch, index })) }
}

type Row = [database: string, table: string, epoch: string, index: number]

const isRow = (row: unknown): row is Row =>
  Array.isArray(row) &&
  row.length === 4 &&
  row.slice(0, 3).every((each) => typeof each === 'string') &&
  Number.isSafeInteger(row[3]) &&
  (row[3] as number) >= 0
