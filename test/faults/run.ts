// One run: nodes write and replicate while faults are injected; the result is checked when all faults are over and everything is applied.

import { mkdir, writeFile } from 'node:fs/promises'
import { availableParallelism, loadavg } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import type { Attributes } from '../../lib/host/merge-row.ts'
import type { SubscriptionStatus, VerifyResult } from '../../lib/index.ts'
import { Database } from '../host/database.ts'
import { clusteringOf, eventually } from '../support/cluster.ts'
import { judge, type NodeState, type Verdict } from './checker.ts'
import type { Disks } from './disks.ts'
import { Exceptions } from './exceptions.ts'
import { type FaultKind, MAX_CLOCK_DRIFT } from './faults.ts'
import { Flows } from './flows.ts'
import { readIncidents } from './incidents.ts'
import { readJournal } from './journal.ts'
import { Ledger } from './ledger.ts'
import { readMarkers } from './markers.ts'
import type { FromNode } from './messages.ts'
import type { Network } from './network.ts'
import { NodeHandle } from './node-handle.ts'
import type { Report } from './report.ts'
import { type Blow, type Planned, schedule } from './schedule.ts'
import { DATABASE, TABLES } from './writes.ts'

export type RunOptions = {
  seed: number
  /** ms during which faults are injected. */
  lasts: number
  nodes: number
  kinds: readonly FaultKind[]
  /** Directory of the whole run. */
  directory: string
  network: Network
  /** Undefined when leaves store in the directory of the run. */
  disks?: Disks | undefined
  report: Report
}

/** Bounds in ms: until all nodes are connected; until the effects of a fault are over; until everything is applied at the end. */
const MEETING = 30_000
const PATIENCE = 30_000
/** ms after which the last write is repeated. */
const MARK_AGAIN = 10_000
const CALM = 60_000
/** ms for a comparison of two tables, which waits for rows that are on their way. */
const COMPARISON = 60_000
/** Load per processor above which a slow response is attributed to the machine. */
const BUSY = 3
/** Megabytes of a leaf's small disk. A leaf with less than 64 free megabytes counts as full. */
const DISK = { least: 128, aMinute: 16 }

export class Run {
  readonly #options: RunOptions
  readonly #nodes: NodeHandle[] = []
  readonly #ledger = new Ledger()
  readonly #flows: Flows
  readonly #names: string[]
  readonly #exceptions: Exceptions

  constructor(options: RunOptions) {
    this.#options = options
    this.#names = Array.from({ length: options.nodes }, (_, number) => `node${number + 1}`)
    this.#flows = new Flows(this.#names, TABLES)
    this.#exceptions = new Exceptions((text) => options.report.violation(text))
  }

  /** Resolves when the run is complete. The report has the violations. */
  async play(): Promise<void> {
    const { report } = this.#options
    let verdict: Verdict | undefined
    try {
      await this.#begin()
      await this.#strike()
      await this.#calm()
      await Promise.all(this.#nodes.map((node) => node.close()))
      verdict = judge(await Promise.all(this.#nodes.map(stateOf)), this.#ledger, this.#exceptions)
      for (const violation of verdict.violations) report.violation(violation)
      if (verdict.quarantined > 0 !== (report.inflicted('clock-beyond') || report.inflicted('clock-days')))
        report.violation(
          `${verdict.quarantined} transactions were in quarantine without a clock fault, or although it was over`,
        )
    } catch (error) {
      report.violation((error as Error).stack ?? String(error))
    }
    report.summary(this.#ledger.size, verdict)
  }

  /** Ends all processes of the run. Idempotent. */
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
          const all = await node.ask<SubscriptionStatus[]>({ ask: 'subscriptions' })
          return all.length === (this.#nodes.length - 1) * TABLES.length && all.every(({ state }) => state === 'live')
        },
        MEETING,
      )
    await Promise.all(this.#nodes.map((node) => node.write(true)))
    await this.#recover('start', Date.now(), PATIENCE)
    report.event(`${this.#names.join(', ')} write and replicate`)
  }

  /** Creates directory, configuration file and disk of a node, without starting it. */
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
    if (message.tell === 'acknowledged') this.#ledger.acknowledged(message.key, message.tables)
    else if (message.tell === 'applied') this.#flows.applied(node.name, message.source, message.table, message)
    else if (message.tell === 'violation') this.#options.report.violation(message.text)
  }

  /** Injects faults until the time is over. */
  async #strike(): Promise<void> {
    const { seed, nodes, kinds, lasts } = this.#options
    const end = Date.now() + lasts
    for (const blow of schedule(seed, nodes, kinds)) {
      if (Date.now() >= end) return
      await this.#suffer(blow)
      await delay(blow.rest)
    }
  }

  /** Resolves when all flows move again, or after the bound. */
  async #suffer({ faults }: Blow): Promise<void> {
    const { report, network } = this.#options
    const inflict = async ({ kind, node: number, other, after, lasts, chance }: Planned): Promise<number> => {
      await delay(after)
      const node = this.#nodes[number]!
      report.fault(kind.name)
      report.event(`${kind.name} ${node.name}${kind.lasts[1] > 0 ? `, ${(lasts / 1_000).toFixed(1)} s` : ''}`)
      const exceptions = this.#exceptions
      const peers = this.#nodes.filter((each) => each !== node)
      return kind.inflict({ node, number, other: this.#nodes[other]!, peers, network, lasts, chance, exceptions })
    }
    const ends = await Promise.all(faults.map(inflict))
    const what = faults.map(({ kind }) => kind.name).join(' + ')
    await this.#recover(what, Math.max(...ends), Math.max(...faults.map(({ kind }) => kind.bound)))
  }

  async #recover(what: string, since: number, bound: number): Promise<void> {
    const { report } = this.#options
    const { longest, flow, dead } = await this.#flows.recovery(since, PATIENCE)
    report.stall(what, longest)
    report.event(`  recovered ${(longest / 1_000).toFixed(1)} s after ${what}, slowest: ${flow}`)
    for (const each of dead) report.violation(`${each} did not recover within ${PATIENCE / 1_000} s after ${what}`)
    if (longest <= bound) return
    const text = `${flow} stalled for ${longest} ms after ${what}, the bound is ${bound} ms`
    const load = (loadavg()[0] ?? 0) / availableParallelism()
    if (load <= BUSY) report.violation(text)
    else report.unjudged(`${text}; the load per processor is ${load.toFixed(1)}`)
  }

  /** Writes once on every node after all other writes: when this write has arrived, all earlier ones have arrived or are lost. */
  async #calm(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.write(false)))
    const last = new Map<string, string>()
    const mark = async () => {
      for (const node of this.#nodes) last.set(node.name, await node.ask<string>({ ask: 'mark' }))
    }
    await mark()
    let markedAt = Date.now()
    let behind: string[] = []
    await eventually(
      () => `everything is applied: ${behind.join(', ')}`,
      async () => {
        behind = this.#flows.behind(last)
        // What is released from quarantine is applied after the mark.
        if (behind.length > 0 && Date.now() - markedAt > MARK_AGAIN) {
          await mark()
          markedAt = Date.now()
        }
        return behind.length === 0
      },
      CALM,
    )
    for (const node of this.#nodes) {
      const kept = await node.ask<number>({ ask: 'replay' })
      if (kept > 0) this.#options.report.violation(`${kept} transactions remain in the quarantine of ${node.name}`)
    }
    let busy: string[] = []
    await eventually(
      () => `no copy is under way: ${busy.join(', ')}`,
      async () => {
        busy = (await Promise.all(this.#nodes.map(unsettledOf))).flat()
        return busy.length === 0
      },
      CALM,
    )
    await this.#compare()
  }

  /** Each node compares each table with that of each other one: nothing differs any more, also where gaps were. */
  async #compare(): Promise<void> {
    for (const node of this.#nodes)
      for (const peer of this.#nodes)
        for (const table of peer === node ? [] : TABLES) {
          const request = { ask: 'verify', node: peer.clusterName, table } as const
          const { rows, repaired: _, ...counts } = await node.ask<VerifyResult>(request, COMPARISON)
          this.#options.report.compared(rows)
          if (Object.values(counts).some((count) => count > 0))
            this.#options.report.violation(
              `${table} of ${node.name} differs from that of ${peer.name}: ${JSON.stringify(counts)}`,
            )
        }
  }
}

/** The subscriptions of a node that are not live, with the reasons. */
async function unsettledOf(node: NodeHandle): Promise<string[]> {
  const all = await node.ask<SubscriptionStatus[]>({ ask: 'subscriptions' })
  return all
    .filter(({ state }) => state !== 'live')
    .map(({ source, state, error }) => `${source.table} from ${source.node} to ${node.name} is ${state} (${error})`)
}

/** The data on the disk of a stopped node. */
async function stateOf({ name, directory }: NodeHandle): Promise<NodeState> {
  const database = await Database.open(join(directory, 'database'))
  try {
    const tables = new Map<string, Map<string, Attributes>>()
    for (const table of TABLES)
      tables.set(table, new Map([...database.scan(DATABASE, table)].map((row) => [String(row.id), row])))
    const [incidents, markers] = await Promise.all([readIncidents(directory), readMarkers(directory)])
    return { name, tables, journal: readJournal(database), incidents, markers }
  } finally {
    await database.close()
  }
}
