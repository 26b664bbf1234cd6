// The last position of one of a node's streams, as heartbeats carry it.

import type { TableName } from '../mesh/mesh.ts'
import type { Heartbeat } from './protocol.ts'

/** `sequence`: the last message of the stream. `index`: its last transaction. */
export type TablePosition = TableName & { epoch: string; sequence: number; index: number }

type WirePosition = Heartbeat['streams'][number]

export const toWirePosition = ({ database, table, epoch, sequence, index }: TablePosition): WirePosition => [
  database,
  table,
  epoch,
  sequence,
  index,
]

export const fromWirePosition = ([database, table, epoch, sequence, index]: WirePosition): TablePosition => ({
  database,
  table,
  epoch,
  sequence,
  index,
})
