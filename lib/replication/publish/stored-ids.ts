// Reads the ids of messages that a stream stored without an acknowledgement: at most as many as were in flight.

import type { Mesh, TableName } from '../../mesh/mesh.ts'
import { messageEpoch, messageId } from '../wire.ts'

export type StoredIdsOptions = {
  table: TableName
  /** Name of the local node. */
  node: string
  mesh: Mesh
  /** ms for all of it. */
  requestTimeout: number
  /** Maximum number of messages in flight. */
  window: number
}

/**
 * Resolves with the ids by sequence. A message of another epoch gets a text that equals no id, because its id proves nothing:
 * other tables have parts of the same transactions.
 */
export async function readStoredIds(
  { mesh, table, node, requestTimeout: timeout, window }: StoredIdsOptions,
  from: number,
  to: number,
  epoch: string,
): Promise<Map<number, string>> {
  const ids = new Map<number, string>()
  if (to < from) return ids
  const reader = await mesh.read({ node, ...table }, from, { timeout, maxMessages: window })
  // A reader that is lost or receives nothing would wait forever.
  const timer = setTimeout(() => reader.close(), timeout)
  try {
    for (let sequence = from - 1; sequence < to; ) {
      for (const entry of await reader.next()) {
        const entryEpoch = messageEpoch(entry)
        ids.set(entry.sequence, entryEpoch === epoch ? messageId(entry) : `a message of epoch '${entryEpoch}'`)
        sequence = entry.sequence
      }
    }
  } finally {
    clearTimeout(timer)
    reader.close()
  }
  return ids
}
