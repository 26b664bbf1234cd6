// The manifest: the desired state of the local node as an immutable value, and pure functions that change it. Every returned
// value is deeply frozen. Unchanged parts are shared, so `===` means unchanged.

import { bareHost } from './names.ts'
import { makeSubscription, mergeSubscription, type Subscription, sameSubscription } from './subscription.ts'

export { type Subscription, sameSubscription } from './subscription.ts'

export type Route = { readonly host: string; readonly port: number }
export type Routes = { readonly hub: readonly Route[]; readonly leaf: readonly Route[] }
export type ServerName = 'hub' | 'leaf'
export type ManifestNode = { readonly name: string; readonly subscriptions: readonly Subscription[] }

export type Manifest = {
  /** Name of the local node; '' only while clustering is disabled and no name is set. */
  readonly nodeName: string
  readonly enabled: boolean
  readonly routes: Routes
  readonly nodes: readonly ManifestNode[]
}

/** One difference between two manifests. Applied in order to the first manifest, all of them result in the second. */
export type ManifestChange =
  | { readonly type: 'route:added'; readonly server: ServerName; readonly route: Route }
  | { readonly type: 'route:removed'; readonly server: ServerName; readonly route: Route }
  | { readonly type: 'node:added'; readonly node: ManifestNode }
  | { readonly type: 'node:updated'; readonly node: ManifestNode; readonly previous: ManifestNode }
  | { readonly type: 'node:removed'; readonly node: ManifestNode }
  /** The same members in another order; `keys` are those of `routeKey`, or names of nodes. */
  | { readonly type: 'order:changed'; readonly list: ServerName | 'nodes'; readonly keys: readonly string[] }
  | { readonly type: 'settings:changed'; readonly nodeName: string; readonly enabled: boolean }

/** The source of a change. */
export type ChangeCause = 'api' | 'file' | 'peer'

/** `user`: the name of the caller of an operation; absent when code called a method, and for edits of the file and peers. */
export type ChangeAuthor = { readonly cause: ChangeCause; readonly user?: string }

/** Routes with equal keys are the same: case and the brackets of IPv6 addresses do not matter. */
export const routeKey = (route: Route): string => `${bareHost(route.host).toLowerCase()} ${route.port}`
export const nodeKey = (node: ManifestNode): string => node.name
export const tableKey = (table: { database: string; table: string }): string =>
  JSON.stringify([table.database, table.table])

export const findNode = (manifest: Manifest, name: string): ManifestNode | undefined =>
  manifest.nodes.find((node) => node.name === name)

/** A frozen list of `create(item, its counterpart in previous)`; `previous` itself when nothing differs. */
function shareList<T>(
  previous: readonly T[],
  items: readonly T[],
  key: (item: T) => string,
  create: (item: T, counterpart: T | undefined) => T,
): readonly T[] {
  if (items === previous) return previous
  let counterparts: Map<string, T> | undefined
  const shared = items.map((item, index) => {
    if (item === previous[index]) return item
    counterparts ??= new Map(
      previous.filter((other, otherIndex) => other !== items[otherIndex]).map((other) => [key(other), other]),
    )
    return create(item, counterparts.get(key(item)))
  })
  const same = shared.length === previous.length && shared.every((item, index) => item === previous[index])
  return same ? previous : Object.freeze(shared)
}

const shareRoute = (route: Route, old: Route | undefined): Route =>
  old?.host === route.host && old.port === route.port ? old : Object.freeze({ host: route.host, port: route.port })

const shareSubscription = (desired: Subscription, old: Subscription | undefined): Subscription =>
  old && sameSubscription(old, desired) ? old : makeSubscription(desired)

const shareNode = (node: ManifestNode, old: ManifestNode | undefined): ManifestNode => {
  const subscriptions = shareList(old?.subscriptions ?? [], node.subscriptions, tableKey, shareSubscription)
  return old && old.subscriptions === subscriptions
    ? old
    : Object.freeze({ name: node.name, subscriptions: Object.freeze(subscriptions) })
}

/** `next`, frozen, with equal parts replaced by those of `previous`; `previous` itself when nothing differs. */
export function share(previous: Manifest, next: Manifest): Manifest {
  if (next === previous) return previous
  const hub = shareList(previous.routes.hub, next.routes.hub, routeKey, shareRoute)
  const leaf = shareList(previous.routes.leaf, next.routes.leaf, routeKey, shareRoute)
  const nodes = shareList(previous.nodes, next.nodes, nodeKey, shareNode)
  const { nodeName, enabled } = next
  const sameRoutes = hub === previous.routes.hub && leaf === previous.routes.leaf
  const sameSettings = nodeName === previous.nodeName && enabled === previous.enabled
  if (sameRoutes && sameSettings && nodes === previous.nodes) return previous
  const routes = sameRoutes ? previous.routes : Object.freeze({ hub, leaf })
  return Object.freeze({ nodeName, enabled, routes, nodes })
}

const emptyList: readonly never[] = Object.freeze([])

/** A disabled node without a name, routes or nodes. */
export const emptyManifest: Manifest = Object.freeze({
  nodeName: '',
  enabled: false,
  routes: Object.freeze({ hub: emptyList, leaf: emptyList }),
  nodes: emptyList,
})

/** A frozen manifest; missing parts are empty. */
export const makeManifest = (parts: Partial<Manifest>): Manifest => share(emptyManifest, { ...emptyManifest, ...parts })

/** Skips routes that either list has, or that occur earlier in `routes`. */
export function addRoutes(
  manifest: Manifest,
  server: ServerName,
  routes: readonly Route[],
): { manifest: Manifest; set: Route[]; skipped: Route[] } {
  const known = new Set([...manifest.routes.hub, ...manifest.routes.leaf].map(routeKey))
  const set: Route[] = []
  const skipped: Route[] = []
  for (const route of routes) {
    const key = routeKey(route)
    ;(known.has(key) ? skipped : set).push(route)
    known.add(key)
  }
  const list = [...manifest.routes[server], ...set]
  return { manifest: share(manifest, { ...manifest, routes: { ...manifest.routes, [server]: list } }), set, skipped }
}

/** Removes each route from the hub list or, if it is not there, from the leaf list. Skips routes in neither list. */
export function removeRoutes(
  manifest: Manifest,
  routes: readonly Route[],
): { manifest: Manifest; deleted: Route[]; skipped: Route[] } {
  const hub = new Map(manifest.routes.hub.map((route) => [routeKey(route), route]))
  const leaf = new Map(manifest.routes.leaf.map((route) => [routeKey(route), route]))
  const deleted: Route[] = []
  const skipped: Route[] = []
  for (const route of routes) {
    const key = routeKey(route)
    const found = hub.delete(key) || leaf.delete(key)
    ;(found ? deleted : skipped).push(route)
  }
  const remaining = { hub: [...hub.values()], leaf: [...leaf.values()] }
  return { manifest: share(manifest, { ...manifest, routes: remaining }), deleted, skipped }
}

/**
 * Upserts the node and these subscriptions; the last one of a table counts. Other subscriptions stay; with `replace` they are
 * removed. Existing subscriptions keep their position, new ones come last.
 */
export function setSubscriptions(
  manifest: Manifest,
  nodeName: string,
  subscriptions: readonly Subscription[],
  options: { replace?: boolean } = {},
): Manifest {
  const index = manifest.nodes.findIndex((node) => node.name === nodeName)
  const desired = new Map(subscriptions.map((subscription) => [tableKey(subscription), subscription]))
  const existing = manifest.nodes[index]?.subscriptions ?? []
  const merged = new Map<string, Subscription>()
  for (const subscription of existing) {
    const key = tableKey(subscription)
    if (!options.replace || desired.has(key)) merged.set(key, subscription)
  }
  for (const [key, subscription] of desired) merged.set(key, mergeSubscription(merged.get(key), subscription))
  const node: ManifestNode = { name: nodeName, subscriptions: [...merged.values()] }
  const nodes = index < 0 ? [...manifest.nodes, node] : manifest.nodes.with(index, node)
  return share(manifest, { ...manifest, nodes })
}

/** A subscription to set or, with `removed`, to remove. */
export type SubscriptionChange = Subscription & { readonly removed?: boolean }

/** Sets and removes subscriptions of a node. With `dropEmpty` a node without subscriptions is removed. */
export function mergeSubscriptions(
  manifest: Manifest,
  nodeName: string,
  changes: readonly SubscriptionChange[],
  dropEmpty = false,
): Manifest {
  const removedKeys = new Set(changes.filter(({ removed }) => removed).map(tableKey))
  const kept = changes.filter(({ removed }) => !removed)
  const existing = findNode(manifest, nodeName)
  if (!existing && kept.length === 0) return manifest
  const merged = kept.length > 0 ? setSubscriptions(manifest, nodeName, kept) : manifest
  const subscriptions = findNode(merged, nodeName)!.subscriptions.filter((each) => !removedKeys.has(tableKey(each)))
  if (dropEmpty && subscriptions.length === 0) return removeNode(merged, nodeName)
  return setSubscriptions(merged, nodeName, subscriptions, { replace: true })
}

/** The manifest without that node; the same object when the node is not in it. */
export const removeNode = (manifest: Manifest, nodeName: string): Manifest =>
  share(manifest, { ...manifest, nodes: manifest.nodes.filter((node) => node.name !== nodeName) })

/** The manifest with exactly these nodes, in this order; names must be unique. */
export const replaceNodes = (manifest: Manifest, nodes: readonly ManifestNode[]): Manifest =>
  share(manifest, { ...manifest, nodes })
