// The plan of a `configure_cluster` dry run, table by table. Pure functions.

import { findNode, type Manifest, sameSubscription, tableKey } from '../manifest/manifest.ts'
import type { SubscriptionRequest } from '../peers/negotiator.ts'

export type PlanEntry = {
  node_name: string
  schema: string
  table: string
  action: 'add' | 'update' | 'remove' | 'keep'
}
export type DesiredConnection = { readonly node: string; readonly subscriptions: readonly SubscriptionRequest[] }

/** For each connection its tables in order, then the tables that it removes; removed nodes come last. */
export function planCluster(manifest: Manifest, connections: readonly DesiredConnection[]): PlanEntry[] {
  const plan: PlanEntry[] = []
  const add = (node: string, { database, table }: { database: string; table: string }, action: PlanEntry['action']) =>
    plan.push({ node_name: node, schema: database, table, action })
  const named = new Set(connections.map(({ node }) => node))
  for (const { node, subscriptions } of connections) {
    const existing = new Map((findNode(manifest, node)?.subscriptions ?? []).map((one) => [tableKey(one), one]))
    for (const subscription of subscriptions) {
      const old = existing.get(tableKey(subscription))
      existing.delete(tableKey(subscription))
      add(node, subscription, !old ? 'add' : sameSubscription(old, subscription) ? 'keep' : 'update')
    }
    for (const removed of existing.values()) add(node, removed, 'remove')
  }
  for (const { name, subscriptions } of manifest.nodes)
    if (!named.has(name)) for (const removed of subscriptions) add(name, removed, 'remove')
  return plan
}
