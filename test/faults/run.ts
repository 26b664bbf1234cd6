// One run: nodes that write and replicate, faults that befall them, and a judgement when all is healed and calm.

import { mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import type { Attributes } from '../../lib/host/merge-row.ts'
import type { SubscriptionStatus } from '../../lib/index.ts'
import { Database } from '../host/database.ts'
import { clusteringOf, eventually } from '../support/cluster.ts'
import { judge, type NodeState, type Verdict } from './checker.ts'
import type { Disks } from './disks.ts'
import { type FaultKind, MAX_CLOCK_DRIFT } from './faults.ts'
import { Flows } from './flows.ts'
import { readIncidents } from './incidents.ts'
import { readJournal } from './journal.ts'
import { Ledger } from './ledger.ts'
import type { FromNode } from './messages.ts'
import type { Network } from './network.ts'
import { NodeHandle } from './node-handle.ts'
import type { Report } from './report.ts'
import { type Blow, type Planned, schedule } from './schedule.ts'
import { DATABASE, TABLES } from './writes.ts'

export type RunOptions = {
  seed: number
  /** ms for which faults befall the nodes. */
  lasts: number
  nodes: number
  kinds: readonly FaultKind[]
  /** Where everything of the run lies. */
  directory: string
  network: Network
  /** Absent when leaves store where the rest of the run lies. */
  disks?: Disks | undefined
  report: Report
}

/** ms, each a bound: until all nodes have met; until a fault is over that did not say so; until all is applied in the end. */
const MEETING_TIMEOUT_MS = 30_000
const RECOVERY_TIMEOUT_MS = 30_000
const QUIESCE_TIMEOUT_MS = 60_000
/** Processes for each processor beyond which a slow answer says nothing about who gave it. */
const BUSY = 3
/** Megabytes of a leaf's small disk; a leaf with less than 64 free counts as full. */
const DISK = { least: 128, aMinute: 16 }

export class Run {
  readonly #options: RunOptions
  readonly #nodes: NodeHandle[] = []
  readonly #ledger = new Ledger()
  readonly #flows: Flows
  readonly #names: string[]

  constructor(options: RunOptions) {
    this.#options = options
    this.#names = Array.from({ length: options.nodes }, (_, number) => `node${number + 1}`)
    this.#flows = new Flows(this.#names, TABLES)
  }

  /** Resolves when all is done, with what was violated in the report. */
  async play(): Promise<void> {
    const { report } = this.#options
    let verdict: Verdict | undefined
    try {
      await this.#begin()
      await this.#strike()
      await this.#quiesce()
      await Promise.all(this.#nodes.map((node) => node.close()))
      verdict = judge(await Promise.all(this.#nodes.map(stateOf)), this.#ledger)
      for (const violation of verdict.violations) report.violation(violation)
      if (verdict.quarantined > 0 !== report.inflicted('clock-beyond'))
        report.violation(`${verdict.quarantined} transactions were in quarantine, for no clock or in spite of one`)
    } catch (error) {
      report.violation((error as Error).stack ?? String(error))
    }
    report.summary(this.#ledger.size, verdict)
  }

  /** Nothing of the run is left running; idempotent. */
  async end(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.end()))
    await this.#options.disks?.close()
  }

  async #begin(): Promise<void> {
    const { report } = this.#options
    for (const number of this.#names.keys()) await this.#prepare(number)
    await Promise.all(this.#nodes.map((node) => node.start()))
    for (const node of this.#nodes)
      await eventually(
        `${node.name} reads from all others`,
        async () => {
          const all = await node.ask<SubscriptionStatus[]>({ type: 'subscriptions' })
          return all.length === (this.#nodes.length - 1) * TABLES.length && all.every(({ state }) => state === 'live')
        },
        MEETING_TIMEOUT_MS,
      )
    await Promise.all(this.#nodes.map((node) => node.write(true)))
    await this.#recover('start', Date.now(), RECOVERY_TIMEOUT_MS)
    report.event(`${this.#names.join(', ')} write and replicate`)
  }

  /** Its folder, its file and its disk; nothing is started. */
  async #prepare(number: number): Promise<void> {
    const { network, seed, disks, lasts } = this.#options
    const name = this.#names[number]!
    const { ports, command } = network.places[number]!
    const directory = join(this.#options.directory, name)
    const store = join(directory, 'store')
    const files = { name, directory, store, configFile: join(directory, 'config.yaml'), ports }
    const onMessage = (node: NodeHandle, message: FromNode) => this.#onMessage(node, message)
    this.#nodes.push(
      new NodeHandle({ ...files, command, onMessage, seed: seed + number, maxClockDrift: MAX_CLOCK_DRIFT }),
    )
    await mkdir(store, { recursive: true })
    await disks?.mount(store, DISK.least + Math.ceil((DISK.aMinute * lasts) / 60_000))
    await writeFile(files.configFile, stringify(this.#configOf(number, store)))
  }

  #configOf(number: number, path: string): object {
    const { places } = this.#options.network
    const { listen, ports } = places[number]!
    const others = places.filter((_, other) => other !== number)
    const { hubServer, leafServer, ...clustering } = clusteringOf(this.#names[number]!, ports)
    const network = { host: listen, port: ports.cluster, routes: others.map(({ route }) => route) }
    return {
      clustering: {
        ...clustering,
        hubServer: { ...hubServer, cluster: { ...hubServer.cluster, network } },
        leafServer: { ...leafServer, streams: { path } },
        nodes: this.#names
          .filter((_, other) => other !== number)
          .map((name) => ({
            name,
            subscriptions: TABLES.map((table) => ({ database: DATABASE, table, publish: true, subscribe: true })),
          })),
      },
    }
  }

  #onMessage(node: NodeHandle, message: FromNode): void {
    if (message.type === 'acknowledged') this.#ledger.acknowledged(message.key, message.tables)
    else if (message.type === 'applied') this.#flows.applied(node.name, message.source, message.table, message)
    else if (message.type === 'violation') this.#options.report.violation(message.text)
  }

  /** Blow after blow, until the time is over. */
  async #strike(): Promise<void> {
    const { seed, nodes, kinds, lasts } = this.#options
    const end = Date.now() + lasts
    for (const blow of schedule(seed, nodes, kinds)) {
      if (Date.now() >= end) return
      await this.#suffer(blow)
      await delay(blow.rest)
    }
  }

  /** Resolves when everything flows again, or does not within bounds. */
  async #suffer({ faults }: Blow): Promise<void> {
    const { report, network } = this.#options
    const inflict = async ({ kind, node: number, other, after, lasts, chance }: Planned): Promise<number> => {
      await delay(after)
      const node = this.#nodes[number]!
      report.fault(kind.name)
      report.event(`${kind.name} ${node.name}${kind.lasts[1] > 0 ? `, ${(lasts / 1_000).toFixed(1)} s` : ''}`)
      return kind.inflict({ node, number, other: this.#nodes[other]!, network, lasts, chance })
    }
    const ends = await Promise.all(faults.map(inflict))
    const what = faults.map(({ kind }) => kind.name).join(' + ')
    await this.#recover(what, Math.max(...ends), Math.max(...faults.map(({ kind }) => kind.bound)))
  }

  async #recover(what: string, since: number, bound: number): Promise<void> {
    const { report } = this.#options
    const { longest, flow, dead } = await this.#flows.recovery(since, RECOVERY_TIMEOUT_MS)
    report.stall(what, longest)
    report.event(`  flowing again ${(longest / 1_000).toFixed(1)} s after ${what}, the last: ${flow}`)
    for (const each of dead)
      report.violation(`${each} did not flow again within ${RECOVERY_TIMEOUT_MS / 1_000} s after ${what}`)
    if (longest <= bound) return
    const text = `${flow} stalled for ${longest} ms after ${what}, the bound is ${bound} ms`
    const load = (loadavg()[0] ?? 0) / availableParallelism()
    if (load <= BUSY) report.violation(text)
    else report.unjudged(`${text}, and ${load.toFixed(1)} processes wait for each processor`)
  }

  /** One last write on every node, behind all others: when it has arrived, everything has, or never will. */
  async #quiesce(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.write(false)))
    const last = new Map<string, string>()
    for (const node of this.#nodes) last.set(node.name, await node.ask<string>({ type: 'mark' }))
    let behind: string[] = []
    await eventually(
      () => `everything is applied: ${behind.join(', ')}`,
      () => {
        behind = this.#flows.behind(last)
        return behind.length === 0
      },
      QUIESCE_TIMEOUT_MS,
    )
    for (const node of this.#nodes) {
      const kept = await node.ask<number>({ type: 'replay' })
      if (kept > 0) this.#options.report.violation(`${kept} transactions stay in the quarantine of ${node.name}`)
    }
  }
}

/** What lies on a node's disk, when it does not run. */
async function stateOf({ name, directory }: NodeHandle): Promise<NodeState> {
  const database = await Database.open(join(directory, 'database'))
  try {
    const tables = new Map<string, Map<string, Attributes>>()
    for (const table of TABLES)
      tables.set(table, new Map([...database.scan(DATABASE, table)].map((row) => [String(row.id), row])))
    return { name, tables, journal: readJournal(database), incidents: await readIncidents(directory) }
  } finally {
    await database.close()
  }
}
