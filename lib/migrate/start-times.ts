// Where the subscriptions of the migrated node begin to read: in the revision file, as if an operation had asked for it.

import { join } from 'node:path'
import { HybridClock } from '../host/hybrid-clock.ts'
import { emptyManifest, type ManifestNode } from '../manifest/manifest.ts'
import { startRequest } from '../manifest/start-request.ts'
import { silentLogger } from '../observe/logger.ts'
import { Registers } from '../peers/registers.ts'

/** ms by which a timestamp may be ahead: no limit matters here. */
const MAX_DRIFT = Number.MAX_SAFE_INTEGER

export type StartTimes = {
  rootPath: string
  nodeName: string
  nodes: readonly ManifestNode[]
  /** ms since 1970: each subscription reads what its stream has stored since then. */
  time: number
  /** Of these nodes the rows are copied too, as far as they differ. HarperDB serves no rows. */
  copied: ReadonlySet<string>
}

/** Written before the node opens first. Rejects state_unwritable. */
export async function writeStartTimes({ rootPath, nodeName, nodes, time, copied }: StartTimes): Promise<void> {
  const clock = new HybridClock(nodeName, MAX_DRIFT)
  const path = join(rootPath, 'clustering', 'revisions.json')
  const revisions = { timestamp: () => clock.timestamp(), resume: (timestamp: string) => clock.resume(timestamp) }
  const registers = await Registers.open(path, { ...emptyManifest, nodeName, enabled: true }, revisions, silentLogger)
  for (const { name, subscriptions } of nodes)
    for (const subscription of subscriptions) {
      const revision = clock.timestamp()
      const startTime = new Date(time).toISOString()
      const start = startRequest(revision, { startTime, ...(copied.has(name) && { copy: true }) })
      registers.set(name, { ...subscription, removed: false, revision, subscribeSince: time, start })
    }
  await registers.store()
}
