// Waits until other nodes have applied a transaction of this node.

import { type ClusterError, clusterError } from '../../errors.ts'
import type { TableName, Transaction } from '../../host/host.ts'
import { tableKey } from '../../manifest/manifest.ts'
import type { Timers } from '../../util/timers.ts'
import type { Publisher, TransactionPosition } from '../publish/publisher.ts'
import { tablesOf } from '../wire/names.ts'
import { stateIn } from './applied-state.ts'
import { Deadline } from './deadline.ts'
import type { ReplicaPositions, ReplicaReport } from './replica-positions.ts'
import type { TableIndex } from './table-index.ts'
import { WaitList } from './wait-list.ts'
import type { Watches } from './watches.ts'

/** Which nodes must have applied it: any so many, or these. */
export type ReplicaTarget = number | readonly string[]

export type ReplicationWaitsOptions = {
  timers: Timers
  publisher: Pick<Publisher, 'locate' | 'endOf'>
  replicas: Pick<ReplicaPositions, 'reportOf'>
  index: Pick<TableIndex, 'subscribersOf'>
  watches: Pick<Watches, 'want'>
}

type Wait = {
  parts: readonly TransactionPosition[]
  target: ReplicaTarget
  resolve(): void
  reject(error: ClusterError): void
  isEnded: boolean
}
type NodeState = { state: 'applied' | 'waiting' } | { state: 'missing'; table: TableName }

const WATCH_INTERVAL_MS = 1_000

export class ReplicationWaits {
  readonly #options: ReplicationWaitsOptions
  /** By `tableKey`. */
  readonly #lists = new Map<string, { table: TableName; list: WaitList<Wait> }>()
  readonly #waits = new Set<Wait>()
  #stop = () => {}

  constructor(options: ReplicationWaitsOptions) {
    this.#options = options
  }

  start(): void {
    this.#stop = this.#options.timers.every(WATCH_INTERVAL_MS, () => this.watchAll())
  }

  /** The subscribers are asked to report at once, unless they were. */
  watchAll(): void {
    for (const { table, list } of this.#lists.values()) if (!list.isEmpty) this.#watch([table])
  }

  /** Rejects everything that waits: `closed`. */
  close(): void {
    this.#stop()
    for (const wait of [...this.#waits]) this.#end(wait, clusterError('closed'))
    this.#lists.clear()
  }

  /**
   * Resolves when these nodes have applied the transaction. Rejects as `Publisher.locate`, and too_few_replicas, not_applied,
   * replication_timeout after `timeout` ms, aborted, closed.
   */
  async wait(
    transaction: Transaction,
    { nodes: target, timeout, signal }: { nodes: ReplicaTarget; timeout: number; signal?: AbortSignal | undefined },
  ): Promise<void> {
    const tables = tablesOf(transaction.writes)
    const tooFew = this.#tooFew(tables, target)
    if (tooFew) throw tooFew
    if (tables.length === 0) return
    const deadline = new Deadline(this.#options.timers, { timeout, signal, operation: 'wait for replication' })
    this.#watch(tables)
    let wait: Wait | undefined
    try {
      const parts = await deadline.limit(this.#options.publisher.locate(transaction), () =>
        clusterError('replication_timeout', 'the local leaf has not acknowledged it yet'),
      )
      const applied = new Promise<void>((resolve, reject) => {
        wait = { parts, target, resolve, reject, isEnded: false }
      })
      this.#add(wait!)
      this.#watch(tables)
      this.#check(wait!)
      await deadline.limit(applied, () => clusterError('replication_timeout', this.#lackingText(wait!)))
    } finally {
      if (wait) this.#end(wait)
      deadline.cancel()
    }
  }

  onReport(
    { node: _, ...table }: TableName & { node: string },
    { position }: ReplicaReport,
    previous: ReplicaReport | undefined,
  ): void {
    const list = this.#lists.get(tableKey(table))?.list
    if (!list || list.isEmpty) return
    const before = previous?.position
    const hasMovedOnly =
      before !== undefined &&
      before.epoch === position.epoch &&
      before.index <= position.index &&
      before.isCopying === position.isCopying &&
      Object.keys(before.missing).length + Object.keys(position.missing).length === 0 &&
      before.copying.length + position.copying.length === 0
    const waits = hasMovedOnly ? list.between(before.index, position.index) : list.all()
    for (const wait of waits) this.#check(wait)
  }

  /** The nodes of the manifest may be others. */
  onManifest(): void {
    for (const wait of [...this.#waits]) this.#check(wait)
  }

  #watch(tables: readonly TableName[]): void {
    for (const table of tables)
      for (const node of this.#options.index.subscribersOf(table)) this.#options.watches.want(node, table)
  }

  #add(wait: Wait): void {
    this.#waits.add(wait)
    for (const { database, table, index } of wait.parts) {
      const key = tableKey({ database, table })
      const known = this.#lists.get(key) ?? { table: { database, table }, list: new WaitList<Wait>() }
      this.#lists.set(key, known)
      known.list.add(index, wait)
    }
  }

  /** Without an error: it resolves, unless it has ended already. */
  #end(wait: Wait, error?: ClusterError): void {
    if (wait.isEnded) return
    wait.isEnded = true
    this.#waits.delete(wait)
    for (const part of wait.parts) this.#lists.get(tableKey(part))?.list.onEnded()
    if (error) wait.reject(error)
    else wait.resolve()
  }

  #check(wait: Wait): void {
    const { parts, target } = wait
    const tooFew = this.#tooFew(parts, target)
    if (tooFew) return this.#end(wait, tooFew)
    const nodes = typeof target === 'number' ? this.#subscribersOfAll(parts) : target
    const needed = typeof target === 'number' ? target : nodes.length
    let applied = 0
    let missing: { node: string; table: TableName } | undefined
    let possible = nodes.length
    for (const node of nodes) {
      const found = this.#stateOf(node, parts)
      if (found.state === 'applied') applied++
      if (applied >= needed) return this.#end(wait)
      if (found.state !== 'missing') continue
      missing ??= { node, table: found.table }
      possible--
    }
    if (missing && possible < needed) {
      const { node, table } = missing
      this.#end(wait, clusterError('not_applied', node, `${table.database}.${table.table}`))
    }
  }

  #stateOf(node: string, parts: readonly TransactionPosition[]): NodeState {
    const { replicas, publisher } = this.#options
    let state: 'applied' | 'waiting' = 'applied'
    for (const { database, table, epoch, index } of parts) {
      const report = replicas.reportOf({ node, database, table })
      // A node in the present epoch has all earlier ones behind it.
      const isEarlier = report?.position.epoch === publisher.endOf({ database, table })?.epoch
      const found = report ? stateIn(report.position, epoch, index, isEarlier) : 'ahead'
      if (found === 'missing') return { state: found, table: { database, table } }
      if (found !== 'applied') state = 'waiting'
    }
    return { state }
  }

  /** The nodes that subscribe to each of these tables. */
  #subscribersOfAll(tables: readonly TableName[]): string[] {
    const [first, ...others] = tables.map((table) => this.#options.index.subscribersOf(table))
    return (first ?? []).filter((node) => others.every((nodes) => nodes.includes(node)))
  }

  #tooFew(tables: readonly TableName[], target: ReplicaTarget): ClusterError | undefined {
    if (tables.length === 0) return undefined
    const subscribers = this.#subscribersOfAll(tables)
    if (typeof target === 'number')
      return subscribers.length < target
        ? clusterError('too_few_replicas', `${subscribers.length} nodes subscribe to each of its tables, not ${target}`)
        : undefined
    const missing = target.filter((node) => !subscribers.includes(node))
    return missing.length > 0
      ? clusterError('too_few_replicas', `${missing.join(', ')} does not subscribe to each of its tables`)
      : undefined
  }

  #lackingText({ parts, target }: Wait): string {
    const nodes = typeof target === 'number' ? this.#subscribersOfAll(parts) : target
    const lacking = nodes.filter((node) => this.#stateOf(node, parts).state !== 'applied')
    return `not applied by ${lacking.join(', ')}`
  }
}
