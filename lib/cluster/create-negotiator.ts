// The negotiation of subscriptions, connected with the other parts of the service.

import type { Mesh } from '../mesh/mesh.ts'
import type { ProgressTask } from '../observe/progress.ts'
import { Negotiator, type NegotiatorOptions } from '../peers/negotiator.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import { hasHarperReaders } from './harper-readers.ts'
import type { CheckedOptions } from './options.ts'
import type { Emit } from './reports.ts'

type Parts = Pick<NegotiatorOptions, 'peers' | 'registers' | 'clock' | 'checkClock' | 'nameFault' | 'askedInVain'> & {
  store: NegotiatorOptions['store'] & Parameters<typeof hasHarperReaders>[0]
  mesh: Mesh
  emit: Emit
  publisher: NegotiatorOptions['streams']
  replicator: Replicator
  progress(task: ProgressTask): (done: number, total?: number) => void
}

export function createNegotiator(
  { host, logger }: CheckedOptions,
  { mesh: { timers }, emit, publisher, replicator, progress, ...more }: Parts,
): Negotiator {
  return new Negotiator({
    ...more,
    node: more.store.manifest.nodeName,
    host,
    logger,
    timers,
    harperReaders: hasHarperReaders(more.store),
    streams: publisher,
    starts: replicator,
    tableCreated: ({ database, table }, node) => {
      replicator.onTableCreated({ database, table })
      emit('table:created', { database, table, node })
    },
    attributesAdded: (table, node, attributes) => emit('table:attributes', { node, ...table, attributes }),
    sourceKeysKnown: (node) => replicator.onSourceKeys(node),
    refused: (node, table, reason) => emit('subscription:refused', { node, ...table, reason }),
    progress: (node, step) => progress({ task: 'configure', node, step }),
  })
}
