// Comparison: two nodes exchange their registers whenever they meet, and after local changes. So both end with the same ones.

import { ClusterError, clusterError, reasonOf } from '../errors.ts'
import { tableKey } from '../manifest/manifest.ts'
import type { Logger } from '../observe/logger.ts'
import { Backoff } from '../util/backoff.ts'
import type { Timers } from '../util/timers.ts'
import type { Agreements } from './agreements.ts'
import { publishFault } from './harper-peers.ts'
import type { Peers } from './peers.ts'
import { type PeerRequest, type RegisterEntry, readEntries } from './protocol.ts'
import { type Register, sameValue } from './register.ts'
import type { Registers } from './registers.ts'
import type { Tables, TablesByKey } from './tables.ts'
import type { Takeover } from './takeover.ts'
import { fromWire, toEntry, toPages } from './wire-subscription.ts'

export type ComparisonOptions = {
  peers: Pick<Peers, 'request' | 'describeTables' | 'isUp' | 'isHarper'>
  registers: Registers
  tables: Tables
  takeover: Takeover
  agreements: Agreements
  /** Nodes of HarperDB may read from this one. */
  harperReaders: boolean
  logger: Logger
  timers: Timers
}

/** Waits between failed comparisons with a node. */
const RETRY_BACKOFF_MS = { first: 1_000, max: 10_000 }

/** Comparisons with one node. */
type PeerComparison = {
  running: Promise<void> | undefined
  /** Registers changed while a comparison was running. */
  again: boolean
  /** In a row. */
  failures: number
  readonly backoff: Backoff
  cancelRetry: (() => void) | undefined
}

export class Comparison {
  readonly #options: ComparisonOptions
  readonly #nodes = new Map<string, PeerComparison>()
  #closed = false

  constructor(options: ComparisonOptions) {
    this.#options = options
  }

  /** Runs one comparison at a time for each node, and one more for later changes. A failed one is retried. Never rejects. */
  compare(node: string): Promise<void> {
    const state = this.#nodes.get(node) ?? {
      running: undefined,
      again: false,
      failures: 0,
      backoff: new Backoff(RETRY_BACKOFF_MS),
      cancelRetry: undefined,
    }
    if (state.running) {
      state.again = true
      return state.running
    }
    this.#nodes.set(node, state)
    state.cancelRetry?.()
    state.cancelRetry = undefined
    state.running = this.#run(node, state)
    return state.running
  }

  async #run(node: string, state: PeerComparison): Promise<void> {
    try {
      if (await this.#exchange(node)) this.#nodes.delete(node)
      else this.#scheduleRetry(node, state)
    } catch (error) {
      this.#onFailure(node, state, error)
    }
    state.running = undefined
    if (!state.again || this.#closed) return
    state.again = false
    void this.compare(node)
  }

  #onFailure(node: string, state: PeerComparison, error: unknown): void {
    const { logger, agreements, registers, peers } = this.#options
    const reason = reasonOf(error)
    const fields = { peer: node, reason }
    // A node may be down for days.
    if (state.failures++ === 0) logger.info(fields, 'comparison of subscriptions failed')
    else logger.debug(fields, 'comparison of subscriptions failed again')
    // A node that rejects and sends no heartbeats does not know revisions (HarperDB).
    const rejected = error instanceof ClusterError && error.code === 'peer_rejected'
    const held = registers.forNode(node).filter(({ removed }) => !removed)
    if (!this.#closed) agreements.failed(node, rejected ? 'refused' : 'pending', reason, held)
    if (!rejected || peers.isUp(node)) this.#scheduleRetry(node, state)
  }

  #scheduleRetry(node: string, state: PeerComparison): void {
    if (this.#closed) return
    state.cancelRetry = this.#options.timers.after(state.backoff.next(), () => void this.compare(node))
  }

  /** True when both nodes agree now; false when either cannot accept a subscription yet. */
  async #exchange(node: string): Promise<boolean> {
    const { peers, registers, tables, takeover, agreements } = this.#options
    let isComplete = true
    const options = { operation: 'compare_node' }
    const remote = await tables.remote(node, options)
    const local = await tables.local()
    tables.addAttributes(node, remote, local)
    const entries = registers.forNode(node).sort((a, b) => (tableKey(a) < tableKey(b) ? -1 : 1))
    await this.#prepare(node, entries, local, remote)
    if (peers.isHarper(node)) return this.#settleWithHarper(node, entries)
    // A page covers every table from its first one up to the first of the next page, whether it is known here or not.
    const pages = entries.length > 0 ? toPages(entries) : [[]]
    for (const [index, page] of pages.entries()) {
      const next = pages[index + 1]?.[0]
      const request: PeerRequest = {
        operation: 'compare_node',
        entries: page.map((entry) => toEntry(entry, local.get(tableKey(entry)) ?? remote.get(tableKey(entry)))),
        range: { from: index > 0 ? tableKey(page[0]!) : '', ...(next ? { to: tableKey(next) } : {}) },
      }
      const answer = readEntries(await peers.request(node, request, options))
      if (!answer) throw clusterError('peer_rejected', node, 'its comparison is unreadable')
      const refusals = await takeover.mergeEntries(node, answer)
      if (refusals.size > 0) isComplete = false
      const refused = answer.filter((entry) => entry.refused !== undefined)
      for (const { schema: database, table, refused: reason = '' } of refused)
        if (registers.get(node, { database, table })) agreements.refuse(node, { database, table }, reason)
      const keys = new Set(refused.map(({ schema: database, table }) => tableKey({ database, table })))
      agreements.confirm(
        node,
        page.filter((each) => !keys.has(tableKey(each))),
      )
      if (refused.length > 0) isComplete = false
    }
    return isComplete
  }

  /** HarperDB knows no comparison: the subscriptions stand without its agreement. */
  #settleWithHarper(node: string, entries: readonly Register[]): boolean {
    const { agreements, harperReaders } = this.#options
    for (const entry of entries) {
      const refused = entry.removed ? undefined : publishFault([entry], harperReaders)
      if (refused === undefined) agreements.confirm(node, [entry])
      else agreements.refuse(node, entry, refused)
    }
    return true
  }

  /**
   * Creates the missing tables of new subscriptions, and the streams of tables that are published. A table of a begun subscription
   * was dropped here: it stays so.
   */
  async #prepare(node: string, entries: readonly Register[], local: TablesByKey, remote: TablesByKey): Promise<void> {
    const { tables, registers } = this.#options
    const existing = entries.filter(({ removed }) => !removed)
    for (const entry of existing) {
      if (!entry.subscribe || registers.begun.has({ ...entry, node })) continue
      const described = remote.get(tableKey(entry))
      if (!local.has(tableKey(entry)) && described) await tables.create(described, node)
    }
    await tables.ensureStreams(existing.filter(({ publish }) => publish))
  }

  /**
   * Takes over the entries that win. Answers with the local ones that are newer, different, or unknown to the peer, and with those
   * that cannot be accepted now, with the reason.
   */
  async answer(
    node: string,
    { entries = [], range: { from, to } = { from: '' } }: PeerRequest,
  ): Promise<RegisterEntry[]> {
    const { registers, tables, takeover, agreements } = this.#options
    const refusals = await takeover.mergeEntries(node, entries)
    const received = new Map(entries.map((entry) => [tableKey({ ...entry, database: entry.schema }), entry]))
    const local = await tables.local()
    const differing = registers.forNode(node).filter((register) => {
      const key = tableKey(register)
      const entry = received.get(key)
      if (entry) return register.revision > entry.revision || !sameValue(register, fromWire(entry, entry.revision))
      return key >= from && (to === undefined || key < to)
    })
    const answer = new Map(
      differing.map((register) => [tableKey(register), toEntry(register, local.get(tableKey(register)))]),
    )
    agreements.confirm(
      node,
      entries
        .map((entry) => ({ database: entry.schema, table: entry.table }))
        .filter((table) => !answer.has(tableKey(table)) && !refusals.has(tableKey(table))),
    )
    for (const [key, refused] of refusals) {
      const entry = received.get(key)!
      const held = answer.get(key) ?? toEntry(fromWire(entry, entry.revision), undefined)
      answer.set(key, { ...held, refused })
    }
    return [...answer.values()]
  }

  /** After `close`. */
  reopen(): void {
    this.#closed = false
  }

  close(): void {
    this.#closed = true
    for (const { cancelRetry } of this.#nodes.values()) cancelRetry?.()
    this.#nodes.clear()
  }
}
