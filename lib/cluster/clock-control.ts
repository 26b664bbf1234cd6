// Compares the clock of this node with wall time and with the clocks of its peers, and leads back to wall time after a wrong clock.

import { clusterError } from '../errors.ts'
import type { ClockReason } from '../events/events.ts'
import type { Host, Transaction } from '../host/host.ts'
import { type HybridClock, makeTimestamp } from '../host/hybrid-clock.ts'
import { Restamp } from '../host/restamp.ts'
import type { Logger } from '../observe/logger.ts'
import type { Timers } from '../util/timers.ts'
import type { Emit } from './reports.ts'

/** `reason` is there while timestamps of this node are, or would be, too far in the future for its peers. */
export type ClockStatus = { readonly aheadMs: number; readonly reason?: ClockReason }

/** Numbers of rows and subscriptions with new timestamps, and of transactions that bring the rows to the peers. */
export type RestampOutcome = { rows: number; transactions: number; subscriptions: number }

export type ClockControlOptions = {
  node: string
  clock: HybridClock
  timers: Timers
  host: Host
  emit: Emit
  logger: Logger
  /** Publishes transactions that the outbox of the host contains. */
  publish(transactions: Transaction[]): void
  /** Gives revisions later than `limit`, in ms since 1970, new ones. Returns how many. */
  restampRevisions(limit: number): number
}

const CHECK_INTERVAL_MS = 1_000
/** Heartbeats take some time, so a peer seems to be behind by that. */
const HEARTBEAT_TOLERANCE_MS = 1_000

const HINTS: Record<ClockReason, string> = {
  'wall-clock': 'the clock of this node is ahead of the clocks of all peers: correct it, then call cluster.restamp()',
  timestamps:
    'timestamps of this node are ahead of its clock: peers quarantine its transactions; call cluster.restamp()',
}

export class ClockControl {
  readonly #options: ClockControlOptions
  /** Wall time of each peer, and the local monotonic time when it was received. */
  readonly #peers = new Map<string, { time: number; receivedAt: number }>()
  /** Peers that were reported as ahead. */
  readonly #aheadPeers = new Set<string>()
  #reported: ClockReason | undefined
  #isRestamping = false
  #stopChecking: (() => void) | undefined

  constructor(options: ClockControlOptions) {
    this.#options = options
  }

  start(): void {
    this.#stopChecking = this.#options.timers.every(CHECK_INTERVAL_MS, () => this.#report())
    this.#report()
  }

  close(): void {
    this.#stopChecking?.()
  }

  /** While true, no timestamps may be issued to the database. */
  get isRestamping(): boolean {
    return this.#isRestamping
  }

  /** A heartbeat of a peer. `time`: its wall time in ms since 1970. */
  onPeerTime(node: string, time: number): void {
    this.#peers.set(node, { time, receivedAt: this.#options.timers.elapsed() })
  }

  onPeerDown(node: string): void {
    this.#peers.delete(node)
    this.#aheadPeers.delete(node)
  }

  /** ms by which the local clock is ahead of that of a peer; undefined when its clock is not known. */
  aheadOf(node: string): number | undefined {
    return this.#peers.has(node) ? this.#aheadOf(node) : undefined
  }

  get status(): ClockStatus {
    const { clock } = this.#options
    let aheadOfAll = Number.POSITIVE_INFINITY
    for (const node of this.#peers.keys()) aheadOfAll = Math.min(aheadOfAll, this.#aheadOf(node))
    if (this.#peers.size > 0 && aheadOfAll > clock.maxDrift + HEARTBEAT_TOLERANCE_MS)
      return { aheadMs: Math.round(aheadOfAll), reason: 'wall-clock' }
    const { aheadMs } = clock
    return aheadMs > clock.maxDrift ? { aheadMs, reason: 'timestamps' } : { aheadMs }
  }

  /** Why peers would refuse what this node issues. */
  get problem(): string | undefined {
    const { aheadMs, reason } = this.status
    return reason && `${HINTS[reason]} (${aheadMs} ms ahead)`
  }

  /** Throws clock_ahead while peers would refuse what this node issues. */
  check(): void {
    const { aheadMs, reason } = this.status
    if (reason) throw clusterError('clock_ahead', this.#options.node, aheadMs, HINTS[reason])
  }

  /** The lowest wall time of this node and its peers, in ms since 1970; undefined while this node is ahead. */
  lowestTime(): number | undefined {
    if (this.status.reason) return undefined
    const { timers } = this.#options
    let ahead = 0
    for (const node of this.#peers.keys()) ahead = Math.max(ahead, this.#aheadOf(node))
    return timers.now() - ahead
  }

  /** See `ClusterManager.restamp`. */
  async restamp(): Promise<RestampOutcome> {
    const { node, clock, timers, host, logger, publish, restampRevisions } = this.#options
    if (!host.restamp) throw clusterError('restamp_unsupported')
    if (this.#isRestamping) throw clusterError('restamping')
    if (this.status.reason === 'wall-clock') this.check()
    const limit = timers.now() + clock.maxDrift
    let transactions: Transaction[] = []
    this.#isRestamping = true
    clock.stopThreads('restamping')
    // Read after the other threads have stopped: the range of voided timestamps includes theirs.
    const restamp = new Restamp({ node, limit, highest: clock.last, createClock: () => this.#clockAbovePeers() })
    try {
      await host.restamp(restamp)
      if (!restamp.result || !restamp.clock) throw new Error('Host.restamp did not finish a pass over the rows')
      transactions = restamp.result.transactions
      clock.continueFrom(restamp.clock)
    } finally {
      this.#isRestamping = false
      clock.resumeThreads()
      // After a rejection too: the host may have committed.
      publish(transactions)
    }
    const outcome = {
      rows: restamp.result.rows.length,
      transactions: transactions.length,
      subscriptions: restampRevisions(limit),
    }
    logger.info(outcome, 'timestamps of the future rewritten')
    this.#report()
    return outcome
  }

  /** Peers may have written up to now, by their clocks, and the rewritten rows win over that everywhere. */
  #clockAbovePeers(): HybridClock {
    const { clock, timers } = this.#options
    const next = clock.atWallTime()
    for (const node of this.#peers.keys())
      next.merge(makeTimestamp(Math.max(0, Math.ceil(timers.now() - this.#aheadOf(node))), 0, node))
    return next
  }

  /** ms by which the local clock is ahead of that of a peer; negative when it is behind. */
  #aheadOf(node: string): number {
    const { timers } = this.#options
    const { time, receivedAt } = this.#peers.get(node)!
    return timers.now() - (time + timers.elapsed() - receivedAt)
  }

  /** Emits and logs once for each change of state. */
  #report(): void {
    const { node, clock, emit, logger } = this.#options
    this.#reportPeers()
    const { aheadMs, reason } = this.status
    if (reason === this.#reported) return
    this.#reported = reason
    const peers = [...this.#peers.keys()].sort()
    if (reason) {
      logger.error({ aheadMs, reason: HINTS[reason], peers, maxClockDrift: clock.maxDrift }, 'clock ahead')
      emit('clock:ahead', { node, aheadMs, reason, peers })
    } else {
      logger.info({ peers }, 'clock no longer ahead')
      emit('clock:ok', { node })
    }
  }

  #reportPeers(): void {
    const { clock, logger } = this.#options
    for (const peer of this.#peers.keys()) {
      const aheadMs = -Math.round(this.#aheadOf(peer))
      const isAhead = aheadMs > clock.maxDrift
      if (isAhead === this.#aheadPeers.has(peer)) continue
      if (isAhead) {
        this.#aheadPeers.add(peer)
        logger.warn({ peer, aheadMs, maxClockDrift: clock.maxDrift }, 'the clock of a peer is ahead of the local clock')
      } else {
        this.#aheadPeers.delete(peer)
        logger.info({ peer }, 'the clock of a peer is no longer ahead of the local clock')
      }
    }
  }
}
