// A simulated HarperDB node on a network in memory.

import type { Mesh } from '../../lib/mesh/mesh.ts'
import type { MemoryNetwork } from '../../lib/testing.ts'
import { HarperNode } from './harper-node.ts'
import type { HarperTableOptions } from './harper-rows.ts'

const listener = new Proxy({}, { get: () => () => {} }) as Parameters<Mesh['open']>[2]

const TIMEOUT = { timeout: 5_000 }

export async function startHarperNode(
  test: { after(work: () => unknown): void },
  network: MemoryNetwork,
  name: string,
  tables: readonly HarperTableOptions[],
): Promise<HarperNode> {
  const mesh = network.mesh(name)
  await mesh.open(name, { hub: [], leaf: [] }, listener)
  for (const each of tables) await mesh.ensureStream(each, '')
  const positions = new Map<string, number>()
  const node = new HarperNode(name, tables, {
    request: (to, data) => mesh.request(to, data, { timeout: 5_000 }),
    serve: (handler) => mesh.serve(handler),
    append: async (database, table, data, lines) => {
      await mesh.ensureStream({ database, table }, '')
      const headers: Record<string, string> = {}
      for (const [name, value] of lines)
        headers[name] = headers[name] === undefined ? value : `${headers[name]},${value}`
      await new Promise<void>((resolve, reject) =>
        mesh.append({ database, table }, { data, headers }, undefined, (error) => (error ? reject(error) : resolve())),
      )
    },
    read: async (source, from, ingest) => {
      const key = JSON.stringify(source)
      const sequence = positions.get(key) ?? (await mesh.sequenceAt(source, from.getTime(), TIMEOUT))
      const reader = await mesh.read(source, sequence, { ...TIMEOUT, maxMessages: 1 })
      const reading = (async () => {
        for (;;)
          for (const { data, headers, sequence } of await reader.next()) {
            const lines = Object.entries(headers).flatMap(([name, value]) =>
              name === 'transacted_nodes'
                ? value.split(',').map((each): [string, string] => [name, each])
                : [[name, value] as [string, string]],
            )
            await ingest(data, lines)
            positions.set(key, sequence + 1)
          }
      })().catch((error) => {
        if (error.code !== 'reader_lost') node.failures.push(error)
      })
      return async (remove) => {
        if (remove) positions.delete(key)
        reader.close()
        await reading
      }
    },
  })
  test.after(async () => {
    await node.close()
    await mesh.close()
  })
  return node
}
