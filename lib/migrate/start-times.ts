// Where the subscriptions of the migrated node begin to read: in the revision file, as if an operation had asked for it.

import { join } from 'node:path'
import { HybridClock } from '../host/hybrid-clock.ts'
import { emptyManifest, type ManifestNode } from '../manifest/manifest.ts'
import { startRequest } from '../manifest/start-request.ts'
import { silentLogger } from '../observe/logger.ts'
import { Registers } from '../peers/registers.ts'

/** ms by which a timestamp may be ahead: no limit matters here. */
const MAX_DRIFT = Number.MAX_SAFE_INTEGER

/**
 * Each subscription reads what its stream stored since `time` (ms since 1970). Written before the node opens first; a file that exists
 * stays. Rejects as the file system does.
 */
export async function writeStartTimes(
  { rootPath, nodeName, nodes }: { rootPath: string; nodeName: string; nodes: readonly ManifestNode[] },
  time: number,
): Promise<void> {
  const clock = new HybridClock(nodeName, MAX_DRIFT)
  const path = join(rootPath, 'clustering', 'revisions.json')
  const revisions = { timestamp: () => clock.timestamp(), resume: (timestamp: string) => clock.resume(timestamp) }
  const registers = await Registers.open(path, { ...emptyManifest, nodeName, enabled: true }, revisions, silentLogger)
  for (const { name, subscriptions } of nodes)
    for (const subscription of subscriptions) {
      const revision = clock.timestamp()
      const start = startRequest(revision, { startTime: new Date(time).toISOString() })
      registers.set(name, { ...subscription, removed: false, revision, subscribeSince: time, start })
    }
  await registers.flush()
}
