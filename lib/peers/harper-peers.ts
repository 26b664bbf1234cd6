// What a HarperDB node can do with this node. It creates the consumers of the streams that it reads by itself, and understands single messages
// only: it can read from this node with `clustering.compatibility: harperdb4`.

import type { TableName } from '../mesh/mesh.ts'
import type { PeerRequest } from './protocol.ts'

/** The setting without which HarperDB cannot read from a node. */
const SETTING = "'clustering.compatibility: harperdb4'"

/** Why a HarperDB node cannot have these subscriptions of the local node; undefined when it can. `harperReaders`: the setting is on. */
export function publishFault(
  subscriptions: readonly (TableName & { publish: boolean })[],
  harperReaders: boolean,
): string | undefined {
  const published = harperReaders ? undefined : subscriptions.find(({ publish }) => publish)
  if (!published) return undefined
  const table = `${published.database}.${published.table}`
  return `it runs HarperDB, which can read from an enmesh node with ${SETTING} only: 'publish' of '${table}' must be false`
}

/** Throws when a HarperDB node asks for what it cannot have. */
export function checkHarperRequest(
  localNode: string,
  { subscriptions = [] }: PeerRequest,
  harperReaders: boolean,
): void {
  const published = harperReaders ? undefined : subscriptions.find(({ publish }) => publish)
  if (!published) return
  const table = `${published.schema}.${published.table}`
  throw new Error(
    `'${localNode}' is an enmesh node, from which HarperDB can read with ${SETTING} only: 'subscribe' of '${table}' must be false`,
  )
}
