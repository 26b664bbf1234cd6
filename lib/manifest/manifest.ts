// The manifest: the wanted state of this node as an immutable value, the changes it can undergo, and the difference of two.

export type Route = { readonly host: string; readonly port: number }
export type Routes = { readonly hub: readonly Route[]; readonly leaf: readonly Route[] }
export type ServerName = 'hub' | 'leaf'
export type Subscription = {
  readonly database: string
  readonly table: string
  /** Our transactions go there. */
  readonly publish: boolean
  /** Theirs come here. */
  readonly subscribe: boolean
}
export type Node = { readonly name: string; readonly subscriptions: readonly Subscription[] }

export type Manifest = {
  /** Our own name; '' only while clustering is disabled and none was set. */
  readonly nodeName: string
  readonly enabled: boolean
  readonly routes: Routes
  readonly nodes: readonly Node[]
}

/** One difference between two manifests. Applied in order to the first, they give the second. */
export type Change =
  | { readonly type: 'route:added'; readonly server: ServerName; readonly route: Route }
  | { readonly type: 'route:removed'; readonly server: ServerName; readonly route: Route }
  | { readonly type: 'node:added'; readonly node: Node }
  | { readonly type: 'node:updated'; readonly node: Node; readonly previous: Node }
  | { readonly type: 'node:removed'; readonly node: Node }
  | { readonly type: 'settings:changed'; readonly nodeName: string; readonly enabled: boolean }

/** Who asked for a change. */
export type Cause = 'api' | 'file' | 'peer'
