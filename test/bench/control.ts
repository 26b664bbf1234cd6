// The control plane: the cost of opening a manifest with many entries, and of changing it by an operation or an edit.

import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ClusterManager } from '../../lib/index.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { MemoryHost } from '../support/memory-host.ts'
import {
  dog,
  type Entries,
  fileOf,
  nodesKey,
  nodesOf,
  partner,
  range,
  routeEntries,
  routeLine,
  subscriptionEntries,
} from './config-files.ts'
import { measure, measureMemory, type Work } from './measure.ts'
import type { Part, PartOptions, Row } from './report.ts'
import { standIn } from './stand-in.ts'

/** ms within which an edit must cause an event. */
const EDIT_TIMEOUT = 60_000
/** Concurrent requests. */
const AT_ONCE = 100

/** A file with many entries, and a function that opens its manager. */
type Scene = {
  readonly entries: Entries
  readonly count: number
  readonly configFile: string
  open(): Promise<ClusterManager>
}
type Measurement = { readonly what: string; readonly work: Work; readonly perRun?: number }

/** Runs `work` on one manager, which the first call opens. */
type Opened = () => Promise<ClusterManager>

let counter = 0
const next = () => ++counter

/** Writes the edit by a rename, as editors do. */
function edit({ entries, configFile }: Scene, opened: Opened): Work {
  const edited = (text: string) => {
    if (entries.routes) return text.replace(nodesKey, `${routeLine(`edited${next()}`)}${nodesKey}`)
    const middle = text.indexOf('publish: ', text.length >> 1)
    const word = text.startsWith('publish: true', middle) ? 'true' : 'false'
    return `${text.slice(0, middle)}publish: ${word !== 'true'}${text.slice(middle + 'publish: '.length + word.length)}`
  }
  return {
    before: async () => {
      await opened()
      await writeFile(`${configFile}.edited`, edited(await readFile(configFile, 'utf8')))
    },
    run: async () => {
      const cluster = await opened()
      await new Promise<void>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no event within ${EDIT_TIMEOUT} ms`)), EDIT_TIMEOUT)
        cluster.once('manifest:changed', ({ cause }) => {
          clearTimeout(timer)
          cause === 'file' ? resolve() : reject(new Error(`the event's cause is ${cause}`))
        })
        rename(`${configFile}.edited`, configFile).catch(reject)
      })
    },
  }
}

const route = () => ({ host: `new${next()}`, port: 9932 })
const setting = (opened: Opened, ...requests: (() => { host: string; port: number }[])[]): Work => ({
  before: opened,
  run: async () => {
    const cluster = await opened()
    const set = requests.map(async (routes) => (await cluster.setRoutes({ server: 'hub', routes: routes() })).set)
    return (await Promise.all(set)).flat()
  },
  after: async (routes) => (await opened()).deleteRoutes({ routes: routes as { host: string; port: number }[] }),
})

function routeWork(scene: Scene, opened: Opened): Measurement[] {
  const many = () => range(scene.count).map(route)
  return [
    { what: 'cluster_set_routes, one', work: setting(opened, () => [route()]) },
    {
      what: `cluster_set_routes, ${AT_ONCE} at once, each`,
      work: setting(opened, ...range(AT_ONCE).map(() => () => [route()])),
      perRun: AT_ONCE,
    },
    ...(scene.entries.routes ? [{ what: 'cluster_set_routes, as many again', work: setting(opened, many) }] : []),
    { what: 'edit of one line to its event', work: edit(scene, opened) },
  ]
}

function nodeWork({ entries, count }: Scene, opened: Opened): Measurement[] {
  const one = async () => {
    const subscriptions = [{ ...dog, publish: next() % 2 === 0, subscribe: true }]
    return (await opened()).setNodeReplication({ node_name: partner, subscriptions })
  }
  const all = async (dry: boolean) => {
    const publish = next() % 2 === 0
    const connections = [{ name: partner, tables: [dog.table] }, ...nodesOf(entries, count)].map(
      ({ name, tables }) => ({
        node_name: name,
        subscriptions: tables.map((table) => ({ database: 'dev', table, publish, subscribe: true })),
      }),
    )
    return (await opened()).configureCluster({ connections, dry_run: dry })
  }
  return [
    { what: 'set_node_replication, one', work: { before: opened, run: one } },
    { what: 'configure_cluster, dry run', work: { before: opened, run: () => all(true) } },
    { what: 'configure_cluster, all changed', work: { before: opened, run: () => all(false) } },
  ]
}

type Place = {
  readonly on: string
  readonly lists: readonly Entries[]
  readonly enabled: boolean
  work(scene: Scene, opened: Opened): Measurement[]
  /** The remote nodes of the file that are running. */
  others(entries: Entries, count: number): { name: string; tables: string[] }[]
}

const partnerAlone = { name: partner, tables: [dog.table] }
const places: readonly Place[] = [
  {
    on: 'disabled',
    lists: [...subscriptionEntries, routeEntries],
    enabled: false,
    work: routeWork,
    others: () => [],
  },
  { on: 'mesh, nodes down', lists: subscriptionEntries, enabled: true, work: nodeWork, others: () => [partnerAlone] },
  {
    on: 'mesh, nodes up',
    lists: subscriptionEntries,
    enabled: true,
    work: nodeWork,
    others: (entries, count) => [partnerAlone, ...nodesOf(entries, count)],
  },
]

async function* rowsOf(place: Place, entries: Entries, count: number, options: PartOptions): AsyncIterable<Row> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-bench-'))
  const configFile = join(directory, 'config.yaml')
  const network = new MemoryNetwork()
  const others = place.others(entries, count)
  const tables = [...new Set(others.flatMap((node) => node.tables))]
  const scene: Scene = {
    entries,
    count,
    configFile,
    open: () => {
      const host = new MemoryHost(tables.map((table) => ['dev', table]))
      return ClusterManager.open({ configFile, host, ...(place.enabled ? { mesh: network.mesh() } : {}) })
    },
  }
  let cluster: ClusterManager | undefined
  const opened = async () => {
    cluster ??= await scene.open()
    return cluster
  }
  const row = async (what: string, figures: () => Promise<Row['figures']>): Promise<Row> => {
    const identity = { on: place.on, list: entries.list, entries: count, what }
    try {
      return { ...identity, figures: await figures() }
    } catch (error) {
      return { ...identity, figures: {}, failed: error instanceof Error ? error.message : String(error) }
    }
  }
  try {
    await writeFile(configFile, fileOf(entries, count, place.enabled))
    for (const { name, tables: theirs } of others) await standIn(network, name, theirs)
    const close = (one: unknown) => (one as ClusterManager).close()
    yield await row('open', () => measure({ run: scene.open, after: close }, count, options))
    for (const { what, work, perRun = 1 } of place.work(scene, opened))
      yield await row(what, () => measure(work, count, options, perRun))
    await cluster?.close()
    yield await row('memory', () => measureMemory(scene.open, close, count))
  } finally {
    await cluster?.close().catch(() => {})
    await network.close()
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  }
}

export const control: Part = {
  name: 'control',
  legend: [
    'disabled: clustering disabled; only file, store and operations. mesh: enabled, on the network in memory; the remote',
    'nodes are stand-ins that agree to everything; nodes down: the nodes of the entries do not answer.',
    'An edit takes 175 ms of waiting (75 for a slow writer, 100 until the file is stable); cpu excludes waiting.',
    '1,000 nodes with 10 tables each are the 10,000 subscriptions, 10 a node. us/entry: microseconds for each entry.',
  ],
  columns: ['operation', 'on', 'entries are', 'entries'],
  async *run(options) {
    for (const place of places.filter(({ on }) => on.includes(options.on)))
      for (const entries of place.lists)
        for (const count of options.entries) yield* rowsOf(place, entries, count, options)
  },
}
