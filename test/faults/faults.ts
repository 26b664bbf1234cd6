// The kinds of fault: how each is inflicted on a node, and when it is over.

import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fill, relieve } from './disks.ts'
import type { Network } from './network.ts'
import type { NodeHandle, Part } from './node-handle.ts'
import { TABLES } from './writes.ts'

/** What a fault has to do with. */
export type Scene = {
  node: NodeHandle
  /** Place of the node in the network. */
  number: number
  /** Another one. */
  other: NodeHandle
  network: Network
  /** ms */
  lasts: number
  /** From 0 up to 1, for what a fault leaves to chance. */
  chance: number
}

export type FaultKind = {
  name: string
  /** How long it lasts, ms. */
  lasts: readonly [least: number, most: number]
  /** ms from its end to the next transaction applied, at most, from every node on every other. */
  bound: number
  /** What a machine may not have, and which runs then leave out. */
  needs?: 'cable' | 'links' | 'disks'
  /** It takes two nodes: nothing else befalls anybody meanwhile. */
  alone?: true
  /** Resolves with the time at which all was there again. */
  inflict(scene: Scene): Promise<number>
}

/** ms; the clocks of a run differ by less, but for the one fault that is about it. */
export const MAX_CLOCK_DRIFT = 4_000
/** Clocks of two nodes may go wrong one after the other, in opposite directions, and stamps remember the highest. */
const DRIFT = 0.45 * MAX_CLOCK_DRIFT
const BEYOND = MAX_CLOCK_DRIFT + 3_000

/** ms: after a server or a host is back; after a healed network; of a hanging server, which has to be found out first. */
const RECOVERY_LIMIT_MS = { process: 3_000, network: 10_000, clock: 10_000 }

const wait = (ms: number) => delay(ms)

const kill = (part: Part): FaultKind => ({
  name: `kill-${part}`,
  lasts: part === 'host' ? [0, 2_000] : [0, 0],
  bound: RECOVERY_LIMIT_MS.process,
  async inflict({ node, lasts }) {
    await node.kill(part)
    if (part === 'host') {
      await wait(lasts)
      await node.start()
    }
    return Date.now()
  },
})

/** `meanwhile` on the node's disk. */
const killNode = (name: string, meanwhile: (node: NodeHandle) => Promise<void>): FaultKind => ({
  name,
  lasts: [0, 3_000],
  bound: RECOVERY_LIMIT_MS.process,
  async inflict({ node, lasts }) {
    await node.killAll()
    await meanwhile(node)
    await wait(lasts)
    await node.start()
    return Date.now()
  },
})

/** A server that hangs for longer than 6 s is replaced by its manager, and may not be there to be woken. */
const stop = (part: Part): FaultKind => ({
  name: `stop-${part}`,
  lasts: [200, 9_000],
  bound: RECOVERY_LIMIT_MS.process,
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
  bound: RECOVERY_LIMIT_MS.network,
  needs: 'cable',
  async inflict({ network, number, lasts }) {
    await network.cable!.cut(number)
    await wait(lasts)
    await network.cable!.repair(number)
    return Date.now()
  },
}

/** Moments in which nothing gets through, so that what is lost is lost for good, and connections live on. */
const loss: FaultKind = {
  name: 'loss',
  lasts: [1_000, 5_000],
  bound: RECOVERY_LIMIT_MS.network,
  needs: 'cable',
  async inflict({ network, number, lasts, chance }) {
    for (const end = Date.now() + lasts; Date.now() < end; ) {
      await network.cable!.cut(number)
      await wait(5 + 40 * chance)
      await network.cable!.repair(number)
      await wait(100)
    }
    return Date.now()
  },
}

/** Of all links between hubs. */
const slow: FaultKind = {
  name: 'delay',
  lasts: [1_000, 6_000],
  bound: RECOVERY_LIMIT_MS.network,
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
  bound: RECOVERY_LIMIT_MS.clock,
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

/** Under a host that lives on, and while another is away that has not read the last of it. Asleep would not do: what is on its way to a sleeper waits there. */
const wipeUnread: FaultKind = {
  name: 'wipe-unread',
  lasts: [500, 3_000],
  bound: RECOVERY_LIMIT_MS.process,
  alone: true,
  async inflict({ node, other, lasts }) {
    await other.kill('host')
    await wait(lasts)
    // Its manager would start the leaf anew before the store is gone.
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
  bound: RECOVERY_LIMIT_MS.process,
  alone: true,
  async inflict({ node, other, lasts, chance }) {
    await other.kill('host')
    await wait(lasts)
    const keep = Math.trunc(20 * chance)
    for (const table of TABLES) await node.ask({ type: 'purge', table, keep })
    await other.start()
    return Date.now()
  },
}

const clockDrift: FaultKind = {
  name: 'clock-drift',
  lasts: [500, 5_000],
  bound: RECOVERY_LIMIT_MS.process,
  async inflict({ node, lasts, chance }) {
    await node.ask({ type: 'clock', offset: Math.round((2 * chance - 1) * DRIFT) })
    await wait(lasts)
    await node.ask({ type: 'clock', offset: 0 })
    return Date.now()
  },
}

/** Stamps never go back: it is over when everybody's clock has come near the one that was wrong. */
const clockBeyond: FaultKind = {
  name: 'clock-beyond',
  lasts: [300, 1_500],
  bound: RECOVERY_LIMIT_MS.process,
  async inflict({ node, lasts }) {
    const began = Date.now()
    await node.ask({ type: 'clock', offset: BEYOND })
    await wait(lasts)
    await node.ask({ type: 'clock', offset: 0 })
    await wait(began + lasts + BEYOND - MAX_CLOCK_DRIFT + DRIFT - Date.now())
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
]

/** `kill` chooses all that begin with `kill-`. Throws for a name that chooses none. */
export function choose(names: readonly string[], kinds: readonly FaultKind[]): FaultKind[] {
  const matching = (name: string) => kinds.filter((kind) => kind.name === name || kind.name.startsWith(`${name}-`))
  for (const name of names)
    if (matching(name).length === 0)
      throw new Error(`there is no fault '${name}'; there are ${kinds.map((kind) => kind.name).join(', ')}`)
  return kinds.filter((kind) => names.some((name) => matching(name).includes(kind)))
}
