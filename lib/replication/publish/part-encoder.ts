// Encodes a transaction, one part for each table, and rejects what a peer cannot decode.

import { ClusterError, clusterError, reasonOf } from '../../errors.ts'
import type { Transaction, Write } from '../../host/host.ts'
import type { Mesh, TableName } from '../../mesh/mesh.ts'
import { TableMap } from '../../mesh/table-map.ts'
import { checkDecodeLimits, MAX_DECODED_VALUES } from '../../util/decode-limits.ts'
import { isReplicable, isValidTransactionId } from '../wire/names.ts'
import { encodePart } from '../wire/part.ts'
import { splitByTable } from '../wire/writes.ts'
import { OutgoingPart, type PartListener, type PendingTransaction } from './pending-transaction.ts'

/**
 * Bytes of the largest message that are reserved for headers, the lengths of the parts and the server's protocol. So what PartEncoder accepts
 * fits into a message, also with what `encodeWhole` adds: ids and names, whose lengths have limits.
 */
const HEADER_RESERVE_BYTES = 64 * 1024
/** Bytes of transactions that fit into a message. */
export const maxDataBytes = (mesh: Mesh): number => mesh.maxPayload - HEADER_RESERVE_BYTES
/** How much a relaying node may add to a transaction: bytes, and decoded values. */
const MAX_RELAY_GROWTH = { bytes: 64 * 1024, values: 1_024 }

export class PartEncoder {
  readonly #mesh: Mesh
  readonly #listener: PartListener
  /** One object for each table that was written; undefined for tables that cannot be replicated. */
  readonly #tables = new TableMap<TableName | undefined>()

  constructor(mesh: Mesh, listener: PartListener) {
    this.#mesh = mesh
    this.#listener = listener
  }

  /** The parts of a transaction, or why it cannot be replicated. */
  encode(pending: PendingTransaction, transaction: Transaction): OutgoingPart[] | ClusterError {
    let parts: OutgoingPart[] = []
    try {
      if (!isValidTransactionId(transaction.id)) throw new Error('its id must be one line of 1 to 1024 characters')
      for (const { table, writes } of splitByTable(transaction)) {
        const replicated = this.#tables.get(table, toReplicable)
        if (!replicated) continue
        const data = this.#encodePart(transaction, writes)
        if (data instanceof ClusterError) return data
        const part = new OutgoingPart(this.#listener, pending, replicated, data)
        // Most transactions have one part: `push` would make room for 17.
        if (parts.length === 0) parts = [part]
        else parts.push(part)
      }
    } catch (error) {
      const message = `a transaction cannot be encoded: ${reasonOf(error)}`
      return new ClusterError('invalid_request', message, { cause: error, issues: [{ path: 'writes', message }] })
    }
    return parts
  }

  /**
   * A transaction of HarperDB has the names of attributes once, and not in each row: without them a relaying node could not send
   * a large one.
   */
  #encodePart(transaction: Transaction, writes: readonly Write[]): Uint8Array | ClusterError {
    const isRelayed = transaction.origin !== undefined
    const data = encodePart(transaction, writes, this.#listener.node)
    const fault = this.#tooLarge(data, isRelayed)
    if (!fault || !isRelayed) return fault ?? data
    const packed = encodePart(transaction, writes, this.#listener.node, { asRecords: true })
    return this.#tooLarge(packed, isRelayed) ? fault : packed
  }

  #tooLarge(data: Uint8Array, isRelayed: boolean): ClusterError | undefined {
    const { byteLength } = data
    const maxBytes = maxDataBytes(this.#mesh) - (isRelayed ? 0 : MAX_RELAY_GROWTH.bytes)
    const maxValues = MAX_DECODED_VALUES - (isRelayed ? 0 : MAX_RELAY_GROWTH.values)
    if (byteLength > maxBytes) return clusterError('transaction_too_large', `${byteLength} bytes`, maxBytes)
    if (checkDecodeLimits(data, maxValues)) return clusterError('transaction_too_large', 'more values', maxValues)
    return undefined
  }
}

const toReplicable = (table: TableName): TableName | undefined => (isReplicable(table) ? table : undefined)
