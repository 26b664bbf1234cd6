// What `configure_cluster` would do to a manifest, table by table. Pure.

import { findNode, type Manifest, sameSubscription, tableKey } from '../manifest/manifest.ts'
import type { Wanted } from '../peers/agreement.ts'

export type PlanEntry = {
  node_name: string
  schema: string
  table: string
  action: 'add' | 'update' | 'remove' | 'keep'
}
export type Connection = { readonly node: string; readonly wanted: readonly Wanted[] }

/** The wanted tables in their order, behind those of each node the ones that end; nodes that go come last. */
export function planCluster(manifest: Manifest, connections: readonly Connection[]): PlanEntry[] {
  const plan: PlanEntry[] = []
  const note = (node: string, { database, table }: { database: string; table: string }, action: PlanEntry['action']) =>
    plan.push({ node_name: node, schema: database, table, action })
  const named = new Set(connections.map(({ node }) => node))
  for (const { node, wanted } of connections) {
    const held = new Map((findNode(manifest, node)?.subscriptions ?? []).map((one) => [tableKey(one), one]))
    for (const subscription of wanted) {
      const old = held.get(tableKey(subscription))
      held.delete(tableKey(subscription))
      note(node, subscription, !old ? 'add' : sameSubscription(old, subscription) ? 'keep' : 'update')
    }
    for (const gone of held.values()) note(node, gone, 'remove')
  }
  for (const { name, subscriptions } of manifest.nodes)
    if (!named.has(name)) for (const gone of subscriptions) note(name, gone, 'remove')
  return plan
}
