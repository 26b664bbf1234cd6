// How this node replicates with each of its peers, as sums over tables: other nodes ask for it to draw links that are not their own.

import type { Manifest } from '../manifest/manifest.ts'
import type { PeerLink } from '../peers/protocol.ts'
import type { Replica } from '../replication/positions/replica-positions.ts'
import type { SubscriptionStatus } from '../replication/subscribe/subscription-status.ts'
import type { Timers } from '../util/timers.ts'
import type { PeerState } from './peer-states.ts'

export type { PeerLink }

/** The worst subscription of a link; an ended or unknown one counts as pending. `down`: the node is not up, see PeerStates. */
export type LinkState = 'down' | 'stalled' | 'pending' | 'paused' | 'copying' | 'catching-up' | 'live'

const SEVERITY: readonly LinkState[] = ['live', 'catching-up', 'copying', 'paused', 'pending', 'stalled', 'down']

/** Higher is worse. A state of a later version is not known here. */
export function severityOf(state: string): number {
  const severity = SEVERITY.indexOf(state as LinkState)
  return severity < 0 ? SEVERITY.indexOf('pending') : severity
}

export const worstOf = <State extends string>(states: readonly State[], first: State): State =>
  states.reduce((one, other) => (severityOf(other) > severityOf(one) ? other : one), first)

export const stateOfSubscription = (state: SubscriptionStatus['state']): LinkState =>
  state === 'ended' ? 'pending' : state

export type LinkReportOptions = {
  timers: Timers
  manifest(): Manifest
  /** The nodes of the manifest. */
  peers(): readonly PeerState[]
  subscriptions(): readonly SubscriptionStatus[]
  /** Running number of the last applied transaction of the table. */
  appliedIndex(source: SubscriptionStatus['source']): number
  replica(subscriber: SubscriptionStatus['source']): Replica | undefined
}

/** ms for which an answer is given again: the cost does not depend on the number of nodes that ask. */
const MAX_AGE_MS = 1_000

type Flow = NonNullable<PeerLink['sent']>
const noFlow = (): Flow => ({ tables: 0, applied: 0, lag: 0, lagSeconds: 0 })

export class LinkReport {
  readonly #options: LinkReportOptions
  #last: { links: PeerLink[]; at: number } | undefined

  constructor(options: LinkReportOptions) {
    this.#options = options
  }

  /** One entry for each node of the manifest. */
  links(): PeerLink[] {
    const now = this.#options.timers.elapsed()
    if (!this.#last || now - this.#last.at >= MAX_AGE_MS) this.#last = { links: this.#collect(), at: now }
    return this.#last.links
  }

  #collect(): PeerLink[] {
    const { manifest, peers, subscriptions, appliedIndex } = this.#options
    const up = new Map(peers().map((peer) => [peer.node, peer.up]))
    const received = new Map<string, Flow & { state: LinkState }>()
    for (const { source, state, lag, lagSeconds } of subscriptions()) {
      const flow = received.get(source.node) ?? { ...noFlow(), state: 'live' as const }
      received.set(source.node, {
        ...add(flow, { applied: appliedIndex(source), lag, lagSeconds }),
        state: worstOf([stateOfSubscription(state)], flow.state),
      })
    }
    return manifest().nodes.map((node) => {
      const { name } = node
      const [from, to] = [received.get(name), this.#sentTo(node)]
      return { node: name, up: up.get(name) === true, ...(from && { received: from }), ...(to && { sent: to }) }
    })
  }

  #sentTo({ name: node, subscriptions }: Manifest['nodes'][number]): Flow | undefined {
    let flow: Flow | undefined
    for (const { database, table, publish } of subscriptions) {
      if (!publish) continue
      const {
        appliedIndex: applied = 0,
        lag = 0,
        lagSeconds = 0,
      } = this.#options.replica({ node, database, table }) ?? {}
      flow = add(flow ?? noFlow(), { applied, lag, lagSeconds })
    }
    return flow
  }
}

const add = (flow: Flow, { applied, lag, lagSeconds }: Omit<Flow, 'tables'>): Flow => ({
  tables: flow.tables + 1,
  applied: flow.applied + applied,
  lag: flow.lag + lag,
  lagSeconds: Math.max(flow.lagSeconds, lagSeconds),
})
