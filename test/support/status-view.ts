// The view of a manager that does not exist: for the status page, with as many nodes and tables as a test wants.

import type { PeerLink } from '../../lib/cluster/peer-links.ts'
import { createEventSource } from '../../lib/events/event-source.ts'
import { type ClusterEvents, type EventName, SafeEmitter } from '../../lib/events/events.ts'
import type { ClusterView, Health, QuarantinedMessage, Replica, SubscriptionStatus } from '../../lib/index.ts'
import { makeManifest } from '../../lib/manifest/manifest.ts'

export type StatusViewOptions = {
  peers?: readonly string[]
  /** Each is replicated with each peer in both directions. */
  tables?: readonly string[]
}

export class StatusView {
  readonly #emitter = new SafeEmitter()
  readonly statuses: SubscriptionStatus[]
  readonly replicas = new Map<string, Replica[]>()
  readonly down = new Set<string>()
  degraded: Health['degraded'] = []
  state: ClusterView['state'] = 'open'
  ready = true
  quarantined: QuarantinedMessage[] = []
  committed = 0
  /** What a peer answers about its links. */
  linksOf = (_node: string): PeerLink[] => []
  /** Peers that were asked for their links, in this order. */
  readonly asked: string[] = []
  readonly view: ClusterView

  constructor({ peers = ['node2', 'node3'], tables = ['dog'] }: StatusViewOptions = {}) {
    const database = 'dev'
    this.statuses = peers.flatMap((node) => tables.map((table) => liveStatus({ node, database, table })))
    for (const table of tables)
      this.replicas.set(
        table,
        peers.map((node) => ({
          node,
          epoch: 'e',
          appliedIndex: 0,
          appliedSequence: 0,
          lag: 0,
          lagSeconds: 0,
          reportedAt: 0,
        })),
      )
    const subscriptions = tables.map((table) => ({ database, table, publish: true, subscribe: true }))
    const manifest = makeManifest({
      nodeName: 'node1',
      enabled: true,
      nodes: peers.map((name) => ({ name, subscriptions })),
    })
    this.view = this.#createView(manifest)
  }

  #createView(manifest: ClusterView['manifest']): ClusterView {
    const self = this
    return {
      get state() {
        return self.state
      },
      manifest,
      events: createEventSource(this.#emitter),
      meshState: 'connected',
      meshReason: undefined,
      clock: { aheadMs: 0 },
      health: () => ({ ready: self.ready, degraded: self.degraded }),
      peers: () => manifest.nodes.map(({ name: node }) => ({ node, up: !self.down.has(node) })),
      subscriptions: () => self.statuses.map((each) => ({ ...each })),
      replicas: ({ table }) => self.replicas.get(table) ?? [],
      linksOf: async (node) => {
        self.asked.push(node)
        return self.linksOf(node)
      },
      quarantine: { list: () => self.quarantined },
      metrics: () => ({
        publish: {
          ...{ transactions: self.committed, messages: 0, bytes: 0, retries: 0, rejected: 0, timeouts: 0 },
          ...{ withheld: 0, inFlight: 0, inFlightBytes: 0, waiting: 0 },
        },
        apply: {
          ...{ applied: 0, batches: 0, bytes: 0, duplicates: 0, retries: 0, consumerRestarts: 0, gaps: 0, lost: 0 },
          ...{ copied: 0, refusedOld: 0, notSubscribed: 0, quarantined: 0, lagSeconds: 0 },
          lag: self.statuses.reduce((sum, { lag }) => sum + lag, 0),
          subscriptions: { pending: 0, copying: 0, 'catching-up': 0, live: 0, stalled: 0, paused: 0 },
        },
      }),
      tombstoneLimit: () => undefined,
    }
  }

  emit<Name extends EventName>(event: Name, ...args: ClusterEvents[Name]): void {
    this.#emitter.emit(event, ...args)
  }

  /** So many transactions of this remote table were applied. */
  apply(status: SubscriptionStatus, transactions: number): void {
    status.appliedSequence += transactions
    this.emit('replication:applied', { source: status.source, transactions, sequence: status.appliedSequence })
  }
}

/** Links of a node with all its peers, in both directions, live; `change` edits one of them. */
export const peerLinks = (peers: readonly string[], change: (link: PeerLink) => void = () => {}): PeerLink[] =>
  peers.map((node) => {
    const flow = { tables: 1, applied: 0, lag: 0, lagSeconds: 0 }
    const link: PeerLink = { node, up: true, received: { ...flow, state: 'live' }, sent: flow }
    change(link)
    return link
  })

export const liveStatus = (source: SubscriptionStatus['source']): SubscriptionStatus => ({
  source,
  state: 'live',
  ...{ appliedSequence: 0, lastSequence: 0, lag: 0, lagSeconds: 0, gaps: 0, lost: 0, quarantined: 0, copied: 0 },
})
