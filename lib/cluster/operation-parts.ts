// The parts of the service, as operations use them.

import type { RemoteTable } from '../host/host.ts'
import type { Mesh, NameCheck } from '../mesh/mesh.ts'
import type { OperationContext } from '../operations/index.ts'
import type { Negotiator } from '../peers/negotiator.ts'
import type { Peers } from '../peers/peers.ts'
import type { Publisher } from '../replication/publish/publisher.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { Pauses } from './pauses.ts'
import type { PositionExchange } from './position-exchange.ts'
import type { RowExchange } from './row-exchange.ts'
import { problemOf } from './subscription-problem.ts'

export type OperationParts = Pick<
  OperationContext,
  'mesh' | 'nameFault' | 'negotiator' | 'peers' | 'streams' | 'verify'
>

type Parts = {
  mesh: Mesh
  peers: Peers
  publisher: Publisher
  replicator: Replicator
  positions: PositionExchange
  pauses: Pauses
  rows: RowExchange
}

export function operationParts(
  { mesh, peers, publisher, replicator, positions, pauses, rows }: Parts,
  negotiator: Negotiator,
  nameFault: NameCheck,
): OperationParts {
  const streams: OperationContext['streams'] = {
    purge: (database, table, options) => publisher.purge({ database, table }, options),
    replica: (subscriber: RemoteTable) => positions.replica(subscriber),
    setPaused: (source: RemoteTable, isPaused: boolean) => pauses.set(source, isPaused),
    losses: (source: RemoteTable) => {
      const { gaps = 0, lost = 0 } = replicator.statusOf(source) ?? {}
      return { gaps, lost }
    },
    problem: (source: RemoteTable) =>
      problemOf(replicator.statusOf(source), negotiator.disagreement(source.node, source)),
  }
  return { mesh, nameFault, negotiator, peers, streams, verify: (source, options) => rows.verify(source, options) }
}
