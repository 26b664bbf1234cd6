// Encodes a transaction, one part for each table, and rejects what a peer cannot decode.

import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Transaction, Write } from '../../host/host.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import { checkDecodeLimits, MAX_DECODED_VALUES } from '../../util/decode-limits.ts'
import { isReplicable, isValidTransactionId } from '../wire/names.ts'
import { encodePart } from '../wire/part.ts'
import { MAX_CHAIN } from '../wire/single-message-encoder.ts'
import { splitByTable } from '../wire/writes.ts'
import { OutgoingPart, type PartListener, type PendingTransaction } from './pending-transaction.ts'

/** Bytes of the largest message that are reserved for headers, the lengths of the parts and the server's protocol. */
const HEADER_RESERVE_BYTES = 64 * 1024
/** Bytes of transactions that fit into a message. */
export const maxDataBytes = (mesh: Mesh): number => mesh.maxPayload - HEADER_RESERVE_BYTES
/** How much a relaying node may add to a transaction: bytes, and decoded values. */
const MAX_RELAY_GROWTH = { bytes: 64 * 1024, values: 1_024 }

/** Part of a message that a transaction may have. A single message repeats the primary keys, and has more values for each row. */
const SINGLE_MESSAGE_SHARE = 0.5

export class PartEncoder {
  readonly #mesh: Mesh
  readonly #listener: PartListener
  readonly #isSingle: boolean
  /** One object for each table that was written; undefined for tables that cannot be replicated. */
  readonly #tables = new TableMap<TableName | undefined>()

  /** `isSingle`: the parts become single messages. */
  constructor(mesh: Mesh, listener: PartListener, isSingle = false) {
    this.#mesh = mesh
    this.#listener = listener
    this.#isSingle = isSingle
  }

  /** The parts of a transaction, or why it cannot be replicated. */
  encode(pending: PendingTransaction, transaction: Transaction): OutgoingPart[] | ClusterError {
    let parts: OutgoingPart[] = []
    try {
      if (!isValidTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      for (const { table, writes } of splitByTable(transaction)) {
        const replicated = this.#tables.get(table, toReplicable)
        if (!replicated) continue
        if (this.#isSingle && chainLength(writes) > MAX_CHAIN)
          return clusterError('transaction_too_large', `a chain of ${chainLength(writes)} rows for HarperDB`, MAX_CHAIN)
        const data = encodePart(transaction, writes, this.#listener.node)
        const part = new OutgoingPart(this.#listener, pending, replicated, data)
        // Most transactions have one part: `push` would make room for 17.
        if (parts.length === 0) parts = [part]
        else parts.push(part)
      }
    } catch (error) {
      const message = `a transaction cannot be encoded: ${reasonOf(error)}`
      return new ClusterError('invalid_request', message, { cause: error, issues: [{ path: 'writes', message }] })
    }
    return this.#tooLarge(parts, transaction.origin !== undefined) ?? parts
  }

  #tooLarge(parts: readonly OutgoingPart[], isRelayed: boolean): ClusterError | undefined {
    const share = this.#isSingle ? SINGLE_MESSAGE_SHARE : 1
    const maxBytes = share * maxDataBytes(this.#mesh) - (isRelayed ? 0 : MAX_RELAY_GROWTH.bytes)
    const maxValues = share * MAX_DECODED_VALUES - (isRelayed ? 0 : MAX_RELAY_GROWTH.values)
    let largest = 0
    for (const { data } of parts) largest = Math.max(largest, data.byteLength)
    if (largest > maxBytes) return clusterError('transaction_too_large', `${largest} bytes`, maxBytes)
    for (const { data } of parts)
      if (checkDecodeLimits(data, maxValues)) return clusterError('transaction_too_large', 'more values', maxValues)
    return undefined
  }
}

const toReplicable = (table: TableName): TableName | undefined => (isReplicable(table) ? table : undefined)

/** Rows that are not in the list of a single message, or more than those. */
function chainLength(writes: readonly Write[]): number {
  if (writes.length === 1) return 0
  const rows = { put: 0, update: 0, delete: 0 }
  for (const write of writes) {
    if (write.operation === 'delete') rows.delete += write.ids?.length ?? 0
    else rows[write.operation === 'update' ? 'update' : 'put'] += write.records?.length ?? 0
  }
  const all = Object.values(rows)
  return all.reduce((sum, each) => sum + each, 0) - Math.max(...all)
}
