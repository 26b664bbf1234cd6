// A simulated HarperDB node on a network in memory.

import type { Mesh } from '../../lib/mesh/mesh.ts'
import type { MemoryNetwork } from '../../lib/testing.ts'
import { HarperNode, type HarperTable } from './harper-node.ts'

const listener = new Proxy({}, { get: () => () => {} }) as Parameters<Mesh['open']>[2]

export async function startHarperNode(
  test: { after(work: () => unknown): void },
  network: MemoryNetwork,
  name: string,
  tables: HarperTable[],
): Promise<HarperNode> {
  const mesh = network.mesh(name)
  await mesh.open(name, { hub: [], leaf: [] }, listener)
  test.after(() => mesh.close())
  for (const each of tables) await mesh.ensureStream(each, '')
  const last = new Map<string, number>()
  return new HarperNode(name, tables, {
    request: (node, data) => mesh.request(node, data, { timeout: 5_000 }),
    serve: (handler) => mesh.serve(handler),
    append: async (database, table, data, headers) => {
      const key = `${database}.${table}`
      await mesh.ensureStream({ database, table }, '')
      const sequence = last.get(key) ?? 0
      last.set(key, sequence + 1)
      const message = { data, headers: Object.fromEntries(headers) }
      await new Promise<void>((resolve, reject) =>
        mesh.append({ database, table }, message, { sequence }, (error) => (error ? reject(error) : resolve())),
      )
    },
  })
}
