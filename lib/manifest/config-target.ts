// Computes the target items of a list of the configuration file from changes of the manifest. Pure.

import { sortByKeys } from './diff.ts'
import {
  type Manifest,
  type ManifestChange,
  type ManifestNode,
  nodeKey,
  type Route,
  routeKey,
  type Subscription,
  sameSubscription,
  tableKey,
} from './manifest.ts'

export type ListName = 'hub' | 'leaf' | 'nodes'
export type ListItem = Route | ManifestNode

export const itemKey = (item: ListItem): string => ('name' in item ? nodeKey(item) : routeKey(item))

export const listOf = (manifest: Manifest, list: ListName): readonly ListItem[] =>
  list === 'nodes' ? manifest.nodes : manifest.routes[list]

const byKey = (subscriptions: readonly Subscription[]) => new Map(subscriptions.map((one) => [tableKey(one), one]))

/** Applies only the difference of the change: the file may have more subscriptions of the node than the manifest. */
function mergeNode(
  existing: ManifestNode | undefined,
  change: ManifestChange & { type: 'node:added' | 'node:updated' },
): ManifestNode {
  const { node } = change
  if (!existing) return node
  const before = byKey(change.type === 'node:updated' ? change.previous.subscriptions : [])
  const after = byKey(node.subscriptions)
  const merged = byKey(existing.subscriptions)
  for (const key of before.keys()) if (!after.has(key)) merged.delete(key)
  for (const [key, desired] of after) {
    const old = before.get(key)
    const inFile = merged.get(key)
    if (old && sameSubscription(old, desired)) continue
    if (!inFile || !sameSubscription(inFile, desired)) merged.set(key, desired)
  }
  const subscriptions = sortByKeys([...merged.values()], [...after.keys()], tableKey)
  const same = subscriptions.length === existing.subscriptions.length
  return same && subscriptions.every((one, index) => one === existing.subscriptions[index])
    ? existing
    : { name: node.name, subscriptions }
}

/** The list of the file with these changes, by key; unchanged items are the same objects. */
export function desiredItems(
  list: ListName,
  existing: Manifest,
  changes: readonly ManifestChange[],
): Map<string, ListItem> {
  let target = new Map(listOf(existing, list).map((item) => [itemKey(item), item]))
  for (const change of changes) {
    if (change.type === 'order:changed') {
      if (change.list === list)
        target = new Map(sortByKeys([...target.values()], change.keys, itemKey).map((item) => [itemKey(item), item]))
    } else if ('route' in change) {
      const key = routeKey(change.route)
      if (change.server !== list) continue
      if (change.type === 'route:removed') target.delete(key)
      else if (!target.has(key)) target.set(key, change.route)
    } else if ('node' in change && list === 'nodes') {
      const { name } = change.node
      if (change.type === 'node:removed') target.delete(name)
      else target.set(name, mergeNode(target.get(name) as ManifestNode | undefined, change))
    }
  }
  return target
}
