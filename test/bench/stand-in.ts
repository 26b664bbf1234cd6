// A remote node on a network in memory that accepts every request, so that only the cost of the requests is measured.

import type { Mesh } from '../../lib/mesh/mesh.ts'
import { decodeRequest, encode, PROTOCOL_VERSION } from '../../lib/peers/protocol.ts'
import type { MemoryNetwork } from '../../lib/testing.ts'

const described = { hash_attribute: 'id', attributes: [{ attribute: 'id' }] }

export async function standIn(network: MemoryNetwork, node: string, tables: readonly string[]): Promise<Mesh> {
  const mesh = network.mesh()
  await mesh.open(node, { hub: [], leaf: [] }, { state: () => {}, rejected: () => {}, linked: () => {} })
  for (const table of tables) await mesh.ensureStream({ database: 'dev', table }, '')
  const dev = Object.fromEntries(tables.map((table) => [table, described]))
  mesh.serve(async (data) => {
    const operation = decodeRequest(data)?.operation
    const message = operation === 'describe_all' ? { dev } : operation === 'compare_node' ? [] : 'taken'
    return encode({ v: PROTOCOL_VERSION, status: 'success', message })
  })
  return mesh
}
