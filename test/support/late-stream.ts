// A subscription that began before the stream of its source existed, with its cursor.

import assert from 'node:assert/strict'
import { replicationCounters } from '../../lib/observe/metrics.ts'
import { Applier } from '../../lib/replication/subscribe/applier.ts'
import { Cursor, type CursorOptions, type Gap } from '../../lib/replication/subscribe/cursor.ts'
import { Begun } from './begun.ts'
import { MemoryHost } from './memory-host.ts'
import { RemoteStream, source } from './remote-stream.ts'

const { signal } = new AbortController()

/** The subscription finds no stream, and then one in this state. `gaps`: from, to and reason of what it reports. */
export async function findLateStream(
  state: Partial<RemoteStream>,
  copies?: CursorOptions['copies'],
): Promise<{ stream: RemoteStream; applier: Applier; gaps: unknown[][] }> {
  const stream = new RemoteStream()
  const host = new MemoryHost([['dev', 'dog']])
  const counters = replicationCounters()
  const applier = new Applier({ host, node: 'node2', relayEnabled: false, counters, relay() {}, validate() {} })
  const gaps: unknown[][] = []
  let exists = false
  const cursor = new Cursor({
    source,
    mesh: { ...stream.mesh, streamState: async () => (exists ? stream.state : undefined) },
    applier,
    begun: new Begun(),
    requestTimeout: 1_000,
    gap: ({ from, to, reason }: Gap) => void gaps.push([from, to, reason]),
    ...(copies && { copies }),
  })
  await assert.rejects(cursor.resume(signal), { code: 'not_found' })
  exists = true
  Object.assign(stream, state)
  await cursor.resume(signal)
  return { stream, applier, gaps }
}
