// The exchange of rows, connected with the other parts of the service.

import type { ManifestStore } from '../manifest/store.ts'
import type { Mesh } from '../mesh/mesh.ts'
import { ProgressReport } from '../observe/progress.ts'
import type { Peers } from '../peers/peers.ts'
import type { Replicator } from '../replication/subscribe/replicator.ts'
import type { CheckedOptions } from './options.ts'
import type { Emit } from './reports.ts'
import { RowExchange, type RowExchangeOptions } from './row-exchange.ts'
import { type TablePositionsOptions, tableStatus } from './table-positions.ts'

/** Parts that are built later. */
type Parts = Pick<TablePositionsOptions, 'publisher'> & { peers: Peers; replicator: Replicator }

export function createRowExchange(
  { host, logger }: CheckedOptions,
  {
    mesh: { timers },
    emit,
    parts,
    ...more
  }: Pick<RowExchangeOptions, 'tables'> & { store: ManifestStore; mesh: Mesh; emit: Emit; parts(): Parts },
): RowExchange {
  return new RowExchange({
    ...more,
    host,
    timers,
    peers: () => parts().peers,
    status: (table) =>
      tableStatus(table, { ...parts(), host, timers, relayEnabled: more.store.settings.republishMessages }),
    applyRows: async (source, rows) => parts().replicator.requireSubscriber(source).merge(rows),
    progress: (source) => {
      const report = new ProgressReport(timers, (progress) => emit('progress', progress), { task: 'verify', ...source })
      return (done, total) => report.update(done, total)
    },
    verified: (source, result) => {
      const { node: peer, database, table } = source
      logger.info({ peer, database, table, ...result }, 'table verified')
      emit('replication:verified', { ...source, ...result })
    },
  })
}
