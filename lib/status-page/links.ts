// Links between the peers of this node, as the peers themselves describe them. They are asked only while a page is open.

import { type PeerLink, severityOf, worstOf } from '../cluster/peer-links.ts'
import type { ClusterView } from '../cluster/view.ts'
import type { Timers } from '../util/timers.ts'

/** What `to` applies of the tables of `from`; neither is the local node. `rate` is absent while it is not known. */
export type LinkRow = {
  from: string
  to: string
  /** The worst of the tables: a state of a subscription, or `down` when one of both takes the other for down. */
  state: string
  tables: number
  rate?: number
  lag: number
  lagSeconds: number
}

/** ms between two questions to the same node, and after a node was up or down; longer with many nodes: at most ten questions a second. */
const INTERVAL_MS = 5_000
const MIN_INTERVAL_MS = 1_000
const MIN_QUESTION_INTERVAL_MS = 100
const MAX_CONCURRENT = 4
/** ms until a node is asked again that does not know the question: it runs an earlier version, and each question is a line in its log. */
const UNKNOWN_INTERVAL_MS = 600_000
/** What such a node answers. */
const UNKNOWN_OPERATION = /\bOperation '\w+' not found/
/** Answers of so many intervals ago are not shown. */
const MAX_INTERVALS = 3

/** With more peers, only links are shown that are not live. */
const MAX_PEERS_WITH_ALL_LINKS = 20
const MAX_LINKS = 400

/** By the other node of the link. */
type Links = ReadonlyMap<string, PeerLink>
type Answer = { links: Links; at: number; previous: { links: Links; at: number } | undefined }

type Peer = { node: string; up: boolean }

export type PeerLinksOptions = {
  view: Pick<ClusterView, 'peers' | 'linksOf'>
  timers: Timers
}

export class PeerLinks {
  readonly #options: PeerLinksOptions
  /** By node. */
  readonly #answers = new Map<string, Answer>()
  /** When a node that does not know the question may be asked again. */
  readonly #unknown = new Map<string, number>()
  #stopAsking: AbortController | undefined
  #lastRoundAt = Number.NEGATIVE_INFINITY
  #nextRoundAt = 0
  #wake: (() => void) | undefined

  constructor(options: PeerLinksOptions) {
    this.#options = options
  }

  /** A page is open. */
  start(): void {
    if (this.#stopAsking) return
    this.#stopAsking = new AbortController()
    void this.#ask(this.#stopAsking.signal)
  }

  /** No page is open. */
  stop(): void {
    this.#stopAsking?.abort()
    this.#stopAsking = undefined
  }

  /** A node is up or down: its peers soon know it too, and it may come back as another version. */
  refresh(node: string): void {
    this.#unknown.delete(node)
    const soonest =
      Math.max(this.#options.timers.elapsed(), this.#lastRoundAt) + minIntervalOf(this.#options.view.peers())
    this.#nextRoundAt = Math.min(this.#nextRoundAt, soonest)
    this.#wake?.()
  }

  /** Worst first. `count`: how many are known. */
  rows(): { rows: LinkRow[]; count: number } {
    const peers = this.#options.view.peers()
    const limit = this.#options.timers.elapsed() - MAX_INTERVALS * intervalOf(peers)
    const all = merge(peers, this.#answers, limit)
    const up = new Map(peers.map((peer) => [peer.node, peer.up]))
    // That a node is down is shown by the node itself.
    const isNotable = ({ node, link, state }: Description) => state !== 'live' && up.get(node) && up.get(link.node)
    const shown = peers.length > MAX_PEERS_WITH_ALL_LINKS ? all.filter(isNotable) : all
    shown.sort((one, other) => severityOf(other.state) - severityOf(one.state) || lagOf(other) - lagOf(one))
    return { rows: shown.slice(0, MAX_LINKS).map(toRow), count: all.length }
  }

  /** A page that is loaded again and again does not make more questions. */
  async #ask(signal: AbortSignal): Promise<void> {
    const { timers, view } = this.#options
    while (!signal.aborted) {
      const wait = this.#nextRoundAt - timers.elapsed()
      if (wait > 0) {
        await this.#pause(wait, signal)
        continue
      }
      const peers = view.peers()
      this.#lastRoundAt = timers.elapsed()
      this.#nextRoundAt = timers.elapsed() + intervalOf(peers)
      const known = new Set(peers.map(({ node }) => node))
      this.#forget(known)
      const queue = peers.filter((peer) => this.#isAsked(peer))
      const askNext = async () => {
        for (let peer = queue.shift(); peer && !signal.aborted; peer = queue.shift())
          await this.#askOne(peer, known, signal)
      }
      await Promise.all(Array.from({ length: MAX_CONCURRENT }, askNext))
    }
  }

  /** Until then, or until `refresh`. */
  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        cancel()
        signal.removeEventListener('abort', end)
        this.#wake = undefined
        resolve()
      }
      const cancel = this.#options.timers.after(ms, end)
      signal.addEventListener('abort', end, { once: true })
      this.#wake = end
    })
  }

  /** `known`: the peers. Only links to them are kept: a peer may answer with thousands of others. */
  async #askOne({ node }: Peer, known: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const { timers, view } = this.#options
    try {
      const answered = await view.linksOf(node, { signal })
      const links = new Map(answered.flatMap((link) => (known.has(link.node) ? [[link.node, link]] : [])))
      const last = this.#answers.get(node)
      const previous = last && { links: last.links, at: last.at }
      this.#answers.set(node, { links, at: timers.elapsed(), previous })
    } catch (error) {
      const { code, message } = error as { code?: unknown; message?: string }
      if (code === 'peer_rejected' && UNKNOWN_OPERATION.test(message ?? ''))
        this.#unknown.set(node, timers.elapsed() + UNKNOWN_INTERVAL_MS)
    }
  }

  #isAsked({ node, up }: Peer): boolean {
    return up && this.#options.timers.elapsed() >= (this.#unknown.get(node) ?? 0)
  }

  #forget(known: ReadonlySet<string>): void {
    for (const nodes of [this.#answers, this.#unknown])
      for (const node of nodes.keys()) if (!known.has(node)) nodes.delete(node)
  }
}

const minIntervalOf = (peers: readonly Peer[]) => Math.max(MIN_INTERVAL_MS, MIN_QUESTION_INTERVAL_MS * peers.length)
const intervalOf = (peers: readonly Peer[]) => Math.max(INTERVAL_MS, minIntervalOf(peers))

/** One direction of a link, as one of its ends describes it. */
type Description = {
  node: string
  answer: Answer
  link: PeerLink
  direction: 'received' | 'sent'
  state: string
}

/** Both ends of a link describe it: the figures are those of the subscriber, if it answers, and the state is the worse one. Pure. */
function merge(peers: readonly Peer[], answers: ReadonlyMap<string, Answer>, limit: number): Description[] {
  const places = new Map(peers.map(({ node }, place) => [node, place]))
  const found = new Map<number, Description>()
  const add = (from: number, to: number, described: Description) => {
    const key = from * peers.length + to
    const known = found.get(key)
    if (known) described.state = known.state = worstOf([known.state], described.state)
    if (!known || described.direction === 'received') found.set(key, described)
  }
  for (const [place, { node, up }] of peers.entries()) {
    const answer = answers.get(node)
    // What a node said before it went down does not hold any more.
    if (!answer || !up || answer.at < limit) continue
    for (const link of answer.links.values()) {
      const other = places.get(link.node)
      if (other === undefined) continue
      const state = link.up ? (link.received?.state ?? 'live') : 'down'
      if (link.received) add(other, place, { node, answer, link, direction: 'received', state })
      if (link.sent) add(place, other, { node, answer, link, direction: 'sent', state: link.up ? 'live' : 'down' })
    }
  }
  return [...found.values()]
}

const lagOf = ({ link, direction }: Description) => link[direction]?.lag ?? 0

function toRow(described: Description): LinkRow {
  const { node, link, direction, state } = described
  const [from, to] = direction === 'sent' ? [node, link.node] : [link.node, node]
  const { tables = 0, lag = 0, lagSeconds = 0 } = link[direction] ?? {}
  const rate = rateOf(described)
  return {
    ...{ from, to, state, tables, lag, lagSeconds: rounded(lagSeconds) },
    ...(rate !== undefined && { rate: rounded(rate) }),
  }
}

/** Digits beyond are noise that every snapshot would carry. */
const rounded = (value: number) => Math.round(value * 100) / 100

/** Since the answer before. Undefined after a new epoch, in which numbers begin again. */
function rateOf({ answer: { at, previous }, link, direction }: Description): number | undefined {
  const before = previous?.links.get(link.node)?.[direction]
  const now = link[direction]
  if (!before || !now || !previous || now.applied < before.applied || at <= previous.at) return undefined
  return ((now.applied - before.applied) * 1_000) / (at - previous.at)
}
