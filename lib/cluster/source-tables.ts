// The tables of remote nodes, for parts that are created before the negotiator that knows them.

import type { Negotiator } from '../peers/negotiator.ts'
import type { SourceTables } from '../replication/subscribe/local-tables.ts'

export const createSourceTables = (tables: () => Negotiator['sourceTables']): SourceTables => ({
  primaryKeyOf: (source) => tables().primaryKeyOf(source),
  refresh: (node) => tables().refresh(node),
  create: (source) => tables().createFor(source),
  attributesFound: (source, attributes) => tables().attributesFound(source, attributes),
})
