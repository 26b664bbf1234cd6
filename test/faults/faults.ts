// The kinds of fault: how each is injected into a node, and when it is over.

import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { SubscriptionStatus } from '../../lib/index.ts'
import { eventually } from '../support/cluster.ts'
import { Backup, deleteCheckpoints } from './database-files.ts'
import { fill, relieve } from './disks.ts'
import type { Exceptions } from './exceptions.ts'
import type { DatabaseFault } from './faulty-host.ts'
import type { Network } from './network.ts'
import type { NodeHandle, Part } from './node-handle.ts'
import { type Restamped, TABLES } from './writes.ts'

/** The context of one fault. */
export type Scene = {
  node: NodeHandle
  /** Index of the node in the network. */
  number: number
  /** A second node. */
  other: NodeHandle
  /** All nodes but `node`. */
  peers: readonly NodeHandle[]
  network: Network
  /** ms */
  lasts: number
  /** A number from 0 to below 1, for random choices of a fault. */
  chance: number
  /** What the check at the end must know. */
  exceptions: Exceptions
}

export type FaultKind = {
  name: string
  /** Minimum and maximum duration, in ms. */
  lasts: readonly [least: number, most: number]
  /** Upper bound in ms from the end of the fault to the next applied transaction, for every pair of nodes. */
  bound: number
  /** A requirement that some machines lack. Runs on those skip the fault. */
  needs?: 'cable' | 'links' | 'disks'
  /** Affects several nodes: no other fault runs at the same time. */
  alone?: true
  /** Resolves with the time at which everything was back. */
  inflict(scene: Scene): Promise<number>
}

/** ms. Clocks of a run differ by less, except for the clock fault. */
export const MAX_CLOCK_DRIFT = 4_000
/** Clocks of two nodes may be wrong one after the other, in opposite directions, and timestamps keep the highest. */
const DRIFT = 0.45 * MAX_CLOCK_DRIFT
const BEYOND = MAX_CLOCK_DRIFT + 3_000
const DAY = 86_400_000

/** Bounds in ms: after a server or a host is back; after a healed network; for a hanging server, which must be detected first. */
const BOUND = { back: 3_000, healed: 10_000, foundOut: 10_000 }

const wait = (ms: number) => delay(ms)

/** ms for a state that a fault needs, or leaves behind. How long that takes is not judged: a loaded machine copies slowly. */
const SETTLED = 60_000

const kill = (part: Part): FaultKind => ({
  name: `kill-${part}`,
  lasts: part === 'host' ? [0, 2_000] : [0, 0],
  bound: BOUND.back,
  async inflict({ node, lasts }) {
    await node.kill(part)
    if (part === 'host') {
      await wait(lasts)
      await node.start()
    }
    return Date.now()
  },
})

/** Runs `meanwhile` on the node's disk. */
const killNode = (name: string, meanwhile: (node: NodeHandle) => Promise<void>): FaultKind => ({
  name,
  lasts: [0, 3_000],
  bound: BOUND.back,
  async inflict({ node, lasts }) {
    await node.killAll()
    await meanwhile(node)
    await wait(lasts)
    await node.start()
    return Date.now()
  },
})

/** The manager replaces a server that hangs for longer than 6 s, so the server may not exist when the fault ends. */
const stop = (part: Part): FaultKind => ({
  name: `stop-${part}`,
  lasts: [200, 9_000],
  bound: BOUND.back,
  async inflict({ node, lasts }) {
    const wake = await node.pause(part)
    await wait(lasts)
    await wake()
    return Date.now()
  },
})

const cut: FaultKind = {
  name: 'cut',
  lasts: [100, 12_000],
  bound: BOUND.healed,
  needs: 'cable',
  async inflict({ network, number, lasts }) {
    await network.cable!.cut(number)
    await wait(lasts)
    await network.cable!.reconnect(number)
    return Date.now()
  },
}

/** Outages that are short enough for connections to survive. */
const loss: FaultKind = {
  name: 'loss',
  lasts: [1_000, 5_000],
  bound: BOUND.healed,
  needs: 'cable',
  async inflict({ network, number, lasts, chance }) {
    for (const end = Date.now() + lasts; Date.now() < end; ) {
      await network.cable!.cut(number)
      await wait(5 + 40 * chance)
      await network.cable!.reconnect(number)
      await wait(100)
    }
    return Date.now()
  },
}

/** Delays all links between hubs. */
const slow: FaultKind = {
  name: 'delay',
  lasts: [1_000, 6_000],
  bound: BOUND.healed,
  needs: 'links',
  async inflict({ network, lasts, chance }) {
    network.links!.delay(20 + 480 * chance)
    await wait(lasts)
    network.links!.delay(0)
    return Date.now()
  },
}

const diskFull: FaultKind = {
  name: 'disk-full',
  lasts: [500, 8_000],
  bound: BOUND.foundOut,
  needs: 'disks',
  async inflict({ node, lasts }) {
    await fill(node.store)
    await wait(lasts)
    await relieve(node.store)
    return Date.now()
  },
}

const wipe = async ({ store }: NodeHandle): Promise<void> => {
  for (const name of await readdir(store)) await rm(join(store, name), { recursive: true, force: true })
}

/** The host survives, and a subscriber is closed before it has read everything. A stopped subscriber would not do: its sockets still receive messages. */
const wipeUnread: FaultKind = {
  name: 'wipe-unread',
  lasts: [500, 3_000],
  bound: BOUND.back,
  alone: true,
  async inflict({ node, other, lasts }) {
    await other.kill('host')
    await wait(lasts)
    // The manager would restart the leaf before the store is deleted.
    const wake = await node.pause('host')
    const leaf = await node.killServer('leaf')
    await wipe(node)
    await wake()
    await node.replaced('leaf', leaf)
    await other.start()
    return Date.now()
  },
}

const purgeUnread: FaultKind = {
  name: 'purge-unread',
  lasts: [500, 3_000],
  bound: BOUND.back,
  alone: true,
  async inflict({ node, other, lasts, chance }) {
    await other.kill('host')
    await wait(lasts)
    const keep = Math.trunc(20 * chance)
    for (const table of TABLES) await node.ask({ ask: 'purge', table, keep })
    await other.start()
    return Date.now()
  },
}

const clockDrift: FaultKind = {
  name: 'clock-drift',
  lasts: [500, 5_000],
  bound: BOUND.back,
  async inflict({ node, lasts, chance }) {
    await node.ask({ ask: 'clock', offset: Math.round((2 * chance - 1) * DRIFT) })
    await wait(lasts)
    await node.ask({ ask: 'clock', offset: 0 })
    return Date.now()
  },
}

/** Timestamps never go back: the fault is over when all clocks have nearly reached the wrong one. */
const clockBeyond: FaultKind = {
  name: 'clock-beyond',
  lasts: [300, 1_500],
  bound: BOUND.back,
  async inflict({ node, lasts }) {
    const began = Date.now()
    await node.ask({ ask: 'clock', offset: BEYOND })
    await wait(lasts)
    await node.ask({ ask: 'clock', offset: 0 })
    await wait(began + lasts + BEYOND - MAX_CLOCK_DRIFT + DRIFT - Date.now())
    return Date.now()
  },
}

/**
 * The documented way back after it, with or without a new start of the process, and in half of the cases while a peer copies rows of
 * that time. Afterwards no peer has a commit of that time, and all have
 * the rows of all of them.
 */
const clockDays: FaultKind = {
  name: 'clock-days',
  lasts: [300, 3_000],
  // The peer reads the whole stream again, and puts the transactions of that time into quarantine one by one.
  bound: BOUND.healed,
  alone: true,
  async inflict({ node, other, peers, lasts, chance, exceptions }) {
    // With its clock ahead it would accept what other nodes have voided, if it had yet to read that again after it lost its checkpoints.
    await eventually(`${node.name} has read everything`, () => hasRead(node), SETTLED)
    await node.ask({ ask: 'clock', offset: Math.round((1 + 9 * chance) * DAY) })
    await wait(lasts)
    if (chance >= 0.25 && chance < 0.75) {
      await forget(other, [...peers.filter((each) => each !== other), node], exceptions)
      await eventually(`${other.name} has left out rows of ${node.name}`, () => leavesOut(other, node), SETTLED)
    }
    if (chance < 0.5) await node.ask({ ask: 'clock', offset: 0 })
    else {
      await node.kill('host')
      await node.start()
    }
    for (const restamped of await node.ask<Restamped[]>({ ask: 'restamp' })) exceptions.restamped(node.name, restamped)
    return Date.now()
  },
}

const databaseFault = (fault: DatabaseFault, longest: number): FaultKind => ({
  name: `database-${fault}`,
  lasts: [200, longest],
  bound: BOUND.back,
  async inflict({ node, lasts }) {
    await node.ask({ ask: 'database', fault })
    await wait(lasts)
    await node.ask({ ask: 'database' })
    return Date.now()
  },
})

/** Restores the database from a copy that was made at the start of the fault. Stream, peers and directory are of now. */
const restore = (name: string, hasPurge: boolean): FaultKind => ({
  name,
  lasts: [300, 3_000],
  bound: BOUND.back,
  alone: true,
  async inflict({ node, lasts, chance, exceptions }) {
    await node.kill('host')
    const backup = await Backup.of(node)
    await node.start()
    await wait(lasts)
    if (hasPurge) for (const table of TABLES) await node.ask({ ask: 'purge', table, keep: Math.trunc(10 * chance) })
    await node.kill('host')
    const { undone, unconfirmed } = await backup.restore()
    exceptions.undone(node.name, undone)
    // Nothing proves that they were stored: they are sent again.
    if (hasPurge) exceptions.repeated(unconfirmed)
    await node.start()
    return Date.now()
  },
})

/** The process is down for at least `ms`. */
async function forget(node: NodeHandle, peers: readonly NodeHandle[], exceptions: Exceptions, ms = 0): Promise<void> {
  await node.kill('host')
  await deleteCheckpoints(node, peers)
  exceptions.checkpointsLost(node.name)
  await wait(ms)
  await node.start()
}

const loseCheckpoints: FaultKind = {
  name: 'lose-checkpoints',
  lasts: [0, 1_000],
  bound: BOUND.back,
  async inflict({ node, peers, lasts, exceptions }) {
    await forget(node, peers, exceptions, lasts)
    return Date.now()
  },
}

/**
 * Closes a node and opens it with another name. In half of the cases a peer is down meanwhile, and reads what was unread under the new
 * name. The last documented step removes the old name.
 */
const rename: FaultKind = {
  name: 'rename',
  lasts: [0, 3_000],
  bound: BOUND.back,
  alone: true,
  async inflict({ node, other, peers, lasts, chance }) {
    const before = node.clusterName
    const isUnread = chance < 0.5
    if (isUnread) {
      await other.kill('host')
      await wait(lasts)
    }
    await node.close()
    await node.rename()
    await Promise.all([node.start(), isUnread && other.start()])
    for (const peer of peers)
      await eventually(`${peer.name} reads from ${node.clusterName}`, () => isReading(peer, node), SETTLED)
    for (const peer of peers) {
      // The quarantine of the old name ends with it.
      await peer.ask({ ask: 'replay' })
      await peer.ask({ ask: 'remove', node: before })
    }
    return Date.now()
  },
}

const subscriptionsOf = (node: NodeHandle) => node.ask<SubscriptionStatus[]>({ ask: 'subscriptions' })

async function isReading(peer: NodeHandle, { clusterName }: NodeHandle): Promise<boolean> {
  const all = await subscriptionsOf(peer)
  return all.filter(({ source, state }) => source.node === clusterName && state === 'live').length === TABLES.length
}

/** What a hanging database did not answer in time would else be released after a minute. */
const hasRead = async (node: NodeHandle): Promise<boolean> =>
  (await node.ask<number>({ ask: 'replay' })) === 0 &&
  (await subscriptionsOf(node)).every(({ state }) => state === 'live')

/** A copy waits for the time of rows whose timestamps are wrong. */
const leavesOut = async (node: NodeHandle, { clusterName }: NodeHandle): Promise<boolean> =>
  (await subscriptionsOf(node)).some(
    ({ source, error }) => source.node === clusterName && error?.includes('timestamps of the future'),
  )

/** A second process opens another configuration file in the directory of a node. It must be refused. */
const secondProcess: FaultKind = {
  name: 'second-process',
  lasts: [0, 0],
  bound: BOUND.back,
  async inflict({ node, exceptions }) {
    const refusal = await node.openTwice()
    if (refusal !== 'directory_in_use') exceptions.violation(`a second process of ${node.name}: ${refusal}`)
    return Date.now()
  },
}

export const faultKinds: readonly FaultKind[] = [
  kill('hub'),
  kill('leaf'),
  kill('host'),
  killNode('kill-node', async () => {}),
  stop('hub'),
  stop('leaf'),
  stop('host'),
  cut,
  loss,
  slow,
  diskFull,
  killNode('wipe-node', wipe),
  wipeUnread,
  purgeUnread,
  clockDrift,
  clockBeyond,
  clockDays,
  databaseFault('hang', 6_000),
  databaseFault('reject', 3_000),
  databaseFault('reject-after-commit', 3_000),
  restore('restore-database', false),
  restore('restore-and-purge', true),
  loseCheckpoints,
  secondProcess,
  rename,
]

/** `kill` selects all faults that begin with `kill-`. Throws for an unknown name. */
export function choose(names: readonly string[], kinds: readonly FaultKind[]): FaultKind[] {
  const matching = (name: string) => kinds.filter((kind) => kind.name === name || kind.name.startsWith(`${name}-`))
  for (const name of names)
    if (matching(name).length === 0)
      throw new Error(`unknown fault '${name}'; known faults: ${kinds.map((kind) => kind.name).join(', ')}`)
  return kinds.filter((kind) => names.some((name) => matching(name).includes(kind)))
}
