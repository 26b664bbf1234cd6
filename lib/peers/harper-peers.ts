// What a HarperDB node cannot do with this node: it creates the consumers of the streams that it reads by itself, which the security
// model does not allow.

import type { TableName } from '../mesh/mesh.ts'
import type { PeerRequest } from './protocol.ts'

/** Why a HarperDB node cannot have these subscriptions of the local node; undefined when it can. */
export function publishFault(subscriptions: readonly (TableName & { publish: boolean })[]): string | undefined {
  const published = subscriptions.find(({ publish }) => publish)
  if (!published) return undefined
  const table = `${published.database}.${published.table}`
  return `it runs HarperDB, which cannot read from an enmesh node: 'publish' of '${table}' must be false`
}

/** Throws when a HarperDB node asks for what it cannot have. */
export function checkHarperRequest(localNode: string, { subscriptions = [] }: PeerRequest): void {
  const published = subscriptions.find(({ publish }) => publish)
  if (!published) return
  const table = `${published.schema}.${published.table}`
  throw new Error(
    `'${localNode}' is an enmesh node, to which HarperDB can publish but not subscribe: 'subscribe' of '${table}' must be false`,
  )
}
