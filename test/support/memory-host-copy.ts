// A copy of a database in memory, as a backup of its files takes it.

import type { MemoryHost } from './memory-host.ts'

/** The returned function restores the copy; call it while no manager uses the host. */
export function copyDatabase(
  host: Pick<MemoryHost, 'outbox' | 'rows' | 'checkpoints' | 'publishedPositions'>,
): () => void {
  const { outbox, rows, checkpoints, publishedPositions } = host
  const copy = structuredClone({ outbox, rows, checkpoints, publishedPositions })
  return () => {
    host.outbox = structuredClone(copy.outbox)
    for (const name of ['rows', 'checkpoints', 'publishedPositions'] as const) {
      const target = host[name] as Map<string, unknown>
      target.clear()
      for (const [key, value] of structuredClone(copy[name])) target.set(key, value)
    }
  }
}
