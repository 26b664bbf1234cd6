// What a list of the configuration file is to say after some changes. Pure.

import { inOrder } from './diff.ts'
import {
  type Change,
  type Manifest,
  type Node,
  nodeKey,
  type Route,
  routeKey,
  type Subscription,
  sameSubscription,
  tableKey,
} from './manifest.ts'

export type List = 'hub' | 'leaf' | 'nodes'
export type Item = Route | Node

export const itemKey = (item: Item): string => ('name' in item ? nodeKey(item) : routeKey(item))

export const listOf = (manifest: Manifest, list: List): readonly Item[] =>
  list === 'nodes' ? manifest.nodes : manifest.routes[list]

const byKey = (subscriptions: readonly Subscription[]) => new Map(subscriptions.map((one) => [tableKey(one), one]))

/** Only what the change changes: the file may say more about the node than the manifest did. */
function mergeNode(held: Node | undefined, change: Change & { type: 'node:added' | 'node:updated' }): Node {
  const { node } = change
  if (!held) return node
  const before = byKey(change.type === 'node:updated' ? change.previous.subscriptions : [])
  const after = byKey(node.subscriptions)
  const merged = byKey(held.subscriptions)
  for (const key of before.keys()) if (!after.has(key)) merged.delete(key)
  for (const [key, wanted] of after) {
    const old = before.get(key)
    const said = merged.get(key)
    if (old && sameSubscription(old, wanted)) continue
    if (!said || !sameSubscription(said, wanted)) merged.set(key, wanted)
  }
  const subscriptions = inOrder([...merged.values()], [...after.keys()], tableKey)
  const same = subscriptions.length === held.subscriptions.length
  return same && subscriptions.every((one, index) => one === held.subscriptions[index])
    ? held
    : { name: node.name, subscriptions }
}

/** The list that the file holds, by key, with these changes; what they do not name stays the same object. */
export function targetOf(list: List, held: Manifest, changes: readonly Change[]): Map<string, Item> {
  let target = new Map(listOf(held, list).map((item) => [itemKey(item), item]))
  for (const change of changes) {
    if (change.type === 'order:changed') {
      if (change.list === list)
        target = new Map(inOrder([...target.values()], change.keys, itemKey).map((item) => [itemKey(item), item]))
    } else if ('route' in change) {
      const key = routeKey(change.route)
      if (change.server !== list) continue
      if (change.type === 'route:removed') target.delete(key)
      else if (!target.has(key)) target.set(key, change.route)
    } else if ('node' in change && list === 'nodes') {
      const { name } = change.node
      if (change.type === 'node:removed') target.delete(name)
      else target.set(name, mergeNode(target.get(name) as Node | undefined, change))
    }
  }
  return target
}
