// verify_table: compares a table with that of a remote node.

import { type Static, Type } from 'typebox'
import { withRule } from './body.ts'
import type { Operation } from './context.ts'
import { checkNode, checkReplicable, databaseFields, databaseOf, databasesAgree, nodeName } from './fields.ts'

const verifyTableSchema = withRule(
  Type.Object({
    node_name: nodeName(),
    ...databaseFields,
    table: Type.String({ minLength: 1 }),
    repair: Type.Optional(Type.Boolean()),
    values: Type.Optional(Type.Boolean()),
  }),
  databasesAgree,
)

export type VerifyTableRequest = Static<typeof verifyTableSchema>
/** The result of `ClusterManager.verify`. */
export type VerifyTableResponse = {
  message: string
  rows: number
  missing_here: number
  missing_there: number
  different: number
  in_flight: number
  repaired: number
}

export const verifyTable: Operation<VerifyTableRequest, VerifyTableResponse> = {
  method: 'verifyTable',
  schema: verifyTableSchema,
  requiresEnabled: true,
  checkNames: (request, rules) => {
    checkNode(request.node_name, rules)
    checkReplicable([{ database: databaseOf(request), table: request.table }], rules.nameFault)
  },
  async handler({ verify }, request, { signal }) {
    const { node_name: node, table, repair = false, values = false } = request
    const database = databaseOf(request)
    const { rows, missingHere, missingThere, different, inFlight, repaired } = await verify(
      { node, database, table },
      { repair, values, signal },
    )
    const differences = missingHere + missingThere + different
    return {
      message: `Table '${database}.${table}' has ${differences} differences from node '${node}'`,
      rows,
      missing_here: missingHere,
      missing_there: missingThere,
      different,
      in_flight: inFlight,
      repaired,
    }
  },
}
