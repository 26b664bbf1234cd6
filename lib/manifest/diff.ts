// The difference between two manifests as a list of changes, and applying a change to a manifest.

import {
  type Manifest,
  type ManifestChange,
  type ManifestNode,
  nodeKey,
  type Route,
  routeKey,
  type ServerName,
  sameSubscription,
  share,
  tableKey,
} from './manifest.ts'

type Difference<T> = { removed: T[]; added: T[]; kept: [previous: T, current: T][]; order: string[] | undefined }

/** How many identical objects both lists share at their start, and then at their end. */
function commonEnds<T>(previous: readonly T[], current: readonly T[]): { head: number; tail: number } {
  const shorter = Math.min(previous.length, current.length)
  let head = 0
  while (head < shorter && previous[head] === current[head]) head++
  let tail = 0
  while (tail < shorter - head && previous.at(-1 - tail) === current.at(-1 - tail)) tail++
  return { head, tail }
}

function compare<T>(previous: readonly T[], current: readonly T[], key: (item: T) => string): Difference<T> {
  const result: Difference<T> = { removed: [], added: [], kept: [], order: undefined }
  const { head, tail } = commonEnds(previous, current)
  const byKey = (items: readonly T[]) =>
    new Map(items.slice(head, items.length - tail).map((item) => [key(item), item]))
  const before = byKey(previous)
  const after = byKey(current)
  // The order after removing and appending.
  const resulting: string[] = []
  for (const [name, item] of before) {
    const counterpart = after.get(name)
    if (counterpart === undefined) result.removed.push(item)
    else {
      if (counterpart !== item) result.kept.push([item, counterpart])
      resulting.push(name)
    }
  }
  for (const [name, item] of after) {
    if (before.has(name)) continue
    result.added.push(item)
    resulting.push(name)
  }
  const isInOrder = [...after.keys()].every((name, index) => name === resulting[index])
  if (!isInOrder || (tail > 0 && result.added.length > 0)) result.order = current.map(key)
  return result
}

function routeChanges(server: ServerName, previous: readonly Route[], current: readonly Route[]): ManifestChange[] {
  const { removed, added, kept, order } = compare(previous, current, routeKey)
  // The same route in another spelling ('HOST', '[::1]'): the new spelling replaces the old one.
  const rewritten = kept.filter(([old, route]) => old.host !== route.host)
  const changes: ManifestChange[] = []
  for (const route of [...removed, ...rewritten.map(([old]) => old)])
    changes.push({ type: 'route:removed', server, route })
  for (const route of [...added, ...rewritten.map(([, route]) => route)])
    changes.push({ type: 'route:added', server, route })
  const keys = order ?? (rewritten.length > 0 ? current.map(routeKey) : undefined)
  if (keys) changes.push({ type: 'order:changed', list: server, keys })
  return changes
}

const sameNode = (a: ManifestNode, b: ManifestNode): boolean =>
  a.subscriptions.length === b.subscriptions.length &&
  a.subscriptions.every((one, index) => {
    const other = b.subscriptions[index]
    return one === other || (other !== undefined && sameSubscription(one, other))
  })

/** The changes from `previous` to `current`: settings, hub routes, leaf routes, nodes; removals before additions. */
export function diff(previous: Manifest, current: Manifest): ManifestChange[] {
  if (previous === current) return []
  const changes: ManifestChange[] = []
  const { nodeName, enabled } = current
  if (nodeName !== previous.nodeName || enabled !== previous.enabled)
    changes.push({ type: 'settings:changed', nodeName, enabled })
  for (const server of ['hub', 'leaf'] as const)
    changes.push(...routeChanges(server, previous.routes[server], current.routes[server]))
  const { removed, added, kept, order } = compare(previous.nodes, current.nodes, nodeKey)
  for (const node of removed) changes.push({ type: 'node:removed', node })
  for (const [old, node] of kept) if (!sameNode(old, node)) changes.push({ type: 'node:updated', node, previous: old })
  for (const node of added) changes.push({ type: 'node:added', node })
  if (order) changes.push({ type: 'order:changed', list: 'nodes', keys: order })
  for (const change of changes) Object.freeze(change)
  return changes
}

/** Sorts the items by the positions of their keys; items without a position come last, in their old order. */
export function sortByKeys<T>(items: readonly T[], keys: readonly string[], key: (item: T) => string): T[] {
  const ranks = new Map(keys.map((name, index) => [name, index]))
  const rank = (item: T) => ranks.get(key(item)) ?? keys.length
  return items.toSorted((a, b) => rank(a) - rank(b))
}

const withRoutes = (manifest: Manifest, server: ServerName, list: readonly Route[]): Manifest => ({
  ...manifest,
  routes: { ...manifest.routes, [server]: list },
})

function applied(manifest: Manifest, change: ManifestChange): Manifest {
  const { nodes, routes } = manifest
  switch (change.type) {
    case 'settings:changed':
      return { ...manifest, nodeName: change.nodeName, enabled: change.enabled }
    case 'route:added':
      return withRoutes(manifest, change.server, [...routes[change.server], change.route])
    case 'route:removed': {
      const removedKey = routeKey(change.route)
      return withRoutes(
        manifest,
        change.server,
        routes[change.server].filter((route) => routeKey(route) !== removedKey),
      )
    }
    case 'node:added':
      return { ...manifest, nodes: [...nodes, change.node] }
    case 'node:updated':
      return { ...manifest, nodes: nodes.map((node) => (node.name === change.node.name ? change.node : node)) }
    case 'node:removed':
      return { ...manifest, nodes: nodes.filter((node) => node.name !== change.node.name) }
    case 'order:changed':
      return change.list === 'nodes'
        ? { ...manifest, nodes: sortByKeys(nodes, change.keys, nodeKey) }
        : withRoutes(manifest, change.list, sortByKeys(routes[change.list], change.keys, routeKey))
  }
}

/** The manifest after one change; the same object when the change has no effect. */
export const applyChange = (manifest: Manifest, change: ManifestChange): Manifest =>
  share(manifest, applied(manifest, change))

function union<T>(
  current: readonly T[],
  target: readonly T[],
  key: (item: T) => string,
  merge: (item: T, desired: T) => T = (_, desired) => desired,
): T[] {
  const desired = new Map(target.map((item) => [key(item), item]))
  const merged = current.map((item) => {
    const counterpart = desired.get(key(item))
    desired.delete(key(item))
    return counterpart === undefined ? item : merge(item, counterpart)
  })
  return [...merged, ...desired.values()]
}

/** `current` with the additions and modifications of `target`, without its removals. */
export const withoutRemovals = (current: Manifest, target: Manifest): Manifest =>
  share(current, {
    ...target,
    routes: {
      hub: union(current.routes.hub, target.routes.hub, routeKey),
      leaf: union(current.routes.leaf, target.routes.leaf, routeKey),
    },
    nodes: union(current.nodes, target.nodes, nodeKey, (node, desired) => ({
      name: node.name,
      subscriptions: union(node.subscriptions, desired.subscriptions, tableKey),
    })),
  })
