// Which names and ids fit into a message, and why a transaction of the host is invalid.

import { createHash } from 'node:crypto'
import { type Issue, invalidRequest } from '../../errors.ts'
import type { Transaction } from '../../host/host.ts'
import { wallTimeOf } from '../../host/hybrid-clock.ts'
import { isToken } from '../../manifest/names.ts'
import type { TableName } from '../../mesh/mesh.ts'

/** The message is not a valid transaction of its table. */
export class WireError extends Error {
  override readonly name = 'WireError'
}

/** Limits of values that a relaying node repeats: together they must fit into `MAX_RELAY_GROWTH` of part-encoder.ts. */
export const MAX_ID_LENGTH = 1_024
export const MAX_EPOCH_LENGTH = 64
export const MAX_RELAYS = 64
export const oneLine = (maxLength: number) => `^[^\\r\\n]{1,${maxLength}}$`
export const NODE_PATTERN = '^[^\\s,]{1,255}$'
/** The name in a timestamp. */
export const ISSUER_PATTERN = '^[^\\s]{1,255}$'
export const TIMESTAMP_PATTERN = '^[0-9a-f]{12}-[0-9a-f]{6}-[^\\s]{0,255}$'

const [LINE_FEED, CARRIAGE_RETURN] = [0x0a, 0x0d]

/** As `oneLine(MAX_ID_LENGTH)`. A regular expression takes several times as long. */
export function isValidTransactionId(text: unknown): text is string {
  if (typeof text !== 'string') return false
  const { length } = text
  if (length === 0 || length > MAX_ID_LENGTH) return false
  for (let at = 0; at < length; at++) {
    const code = text.charCodeAt(at)
    if (code === LINE_FEED || code === CARRIAGE_RETURN) return false
  }
  return true
}

/** False when a name is not a valid token of a NATS subject. */
export const isReplicable = ({ database, table }: TableName): boolean => isToken(database) && isToken(table)

/** Throws invalid_request. */
export function checkTransaction(transaction: Transaction): void {
  const issues = transactionIssues(transaction)
  if (issues) throw invalidRequest(issues)
}

/** The tables of these writes, each once, without those that cannot be replicated. */
export function tablesOf(writes: readonly TableName[]): TableName[] {
  const tables = new Map<string, TableName>()
  for (const { database, table } of writes)
    if (isReplicable({ database, table })) tables.set(`${database}.${table}`, { database, table })
  return [...tables.values()]
}

/** The id of one table's part of a relayed transaction, within `MAX_ID_LENGTH`. */
export function partId(id: string, { database, table }: TableName): string {
  const whole = `${id}:${database}.${table}`
  return whole.length <= MAX_ID_LENGTH ? whole : createHash('sha256').update(whole).digest('hex')
}

/** Why a transaction of the host is invalid, apart from its writes; undefined when it is valid. */
export function transactionIssues(transaction: Transaction): Issue[] | undefined {
  const { id, timestamp, writes } = (transaction ?? {}) as { id?: unknown; timestamp?: unknown; writes?: unknown }
  const hasId = typeof id === 'string' && id !== ''
  const hasTimestamp = typeof timestamp === 'string' && !Number.isNaN(wallTimeOf(timestamp))
  if (hasId && hasTimestamp && Array.isArray(writes)) return undefined
  const issues = []
  if (!hasId) issues.push({ path: 'id', message: "'id' must be a non-empty, globally unique string" })
  if (!hasTimestamp)
    issues.push({ path: 'timestamp', message: "'timestamp' must be a value that cluster.timestamp() returned" })
  if (!Array.isArray(writes)) issues.push({ path: 'writes', message: "'writes' must be an array" })
  return issues
}
