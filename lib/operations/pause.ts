// pause_replication and resume_replication: nothing of a remote table is applied meanwhile.

import { type Static, Type } from 'typebox'
import { withRule } from './body.ts'
import type { Operation } from './context.ts'
import { checkNode, checkReplicable, databaseFields, databaseOf, databasesAgree, nodeName } from './fields.ts'

const pauseSchema = withRule(
  Type.Object({ node_name: nodeName(), ...databaseFields, table: Type.String({ minLength: 1 }) }),
  databasesAgree,
)

export type PauseReplicationRequest = Static<typeof pauseSchema>
export type PauseReplicationResponse = { message: string }

const operation = (
  method: string,
  isPaused: boolean,
): Operation<PauseReplicationRequest, PauseReplicationResponse> => ({
  method,
  schema: pauseSchema,
  requiresEnabled: true,
  checkNames: (request, rules) => {
    checkNode(request.node_name, rules)
    checkReplicable([{ database: databaseOf(request), table: request.table }], rules.nameFault)
  },
  async handler({ streams }, request) {
    const { node_name: node, table } = request
    const database = databaseOf(request)
    await streams.setPaused({ node, database, table }, isPaused)
    return { message: `Successfully ${isPaused ? 'paused' : 'resumed'} table '${database}.${table}' of node '${node}'` }
  },
})

export const pauseReplication = operation('pauseReplication', true)
export const resumeReplication = operation('resumeReplication', false)
