// purge_stream: removes messages from the local stream of a table.

import { type Static, Type } from 'typebox'
import { clusterError } from '../errors.ts'
import { tokenFault } from '../manifest/names.ts'
import { withRule } from './body.ts'
import type { Operation } from './context.ts'
import { checkReplicable, databaseFields, databaseOf, databasesAgree } from './fields.ts'

const count = () => Type.Optional(Type.Integer({ minimum: 0 }))

const purgeStreamSchema = withRule(
  Type.Object({
    ...databaseFields,
    table: Type.String({ minLength: 1 }),
    options: withRule(
      Type.Optional(Type.Object({ keep: count(), seq: count() }, { nullIsMissing: true })),
      ({ keep, seq }, path) =>
        keep !== undefined && seq !== undefined ? { path, message: 'can specify one of keep or seq' } : undefined,
    ),
  }),
  databasesAgree,
)

export type PurgeStreamRequest = Static<typeof purgeStreamSchema>
export type PurgeStreamResponse = { message: string }

export const purgeStream: Operation<PurgeStreamRequest, PurgeStreamResponse> = {
  method: 'purgeStream',
  schema: purgeStreamSchema,
  requiresEnabled: true,
  // Only `tokenFault`: a table whose name peers cannot read still has a local stream.
  checkNames: (request) => checkReplicable([{ database: databaseOf(request), table: request.table }], tokenFault),
  async handler({ host, streams }, request) {
    const { table, options: { keep, seq } = {} } = request
    const database = databaseOf(request)
    const tables = await host.describe()
    if (!tables.some((one) => one.database === database)) throw clusterError('database_not_found', database, table)
    if (!tables.some((one) => one.database === database && one.table === table))
      throw clusterError('table_not_found', table)
    await streams.purge(database, table, {
      ...(keep === undefined ? {} : { keep }),
      ...(seq === undefined ? {} : { before: seq }),
    })
    return { message: `Successfully purged table '${database}.${table}'` }
  },
}
