// The kinds of fault: how each is inflicted on a node, and when it is over.

import { setTimeout as delay } from 'node:timers/promises'
import type { NodeHandle, Part } from './node-handle.ts'

export type FaultKind = {
  name: string
  /** How long it lasts, ms. */
  lasts: [least: number, most: number]
  /** ms from its end to the next transaction applied, at most, from every node on every other. */
  bound: number
  /** Rejects when what it needs is not to be had. Resolves with the time at which all was there again. */
  inflict(node: NodeHandle, lasts: number): Promise<number>
}

/** After a server or a host is back, and after a healed network. */
const BOUND = { back: 3_000, healed: 10_000 }

const kill = (part: Part): FaultKind => ({
  name: `kill-${part}`,
  lasts: [0, 2_000],
  bound: BOUND.back,
  async inflict(node, lasts) {
    await node.kill(part)
    if (part !== 'host') return Date.now()
    await delay(lasts)
    await node.start()
    return Date.now()
  },
})

const killNode: FaultKind = {
  name: 'kill-node',
  lasts: [0, 3_000],
  bound: BOUND.back,
  async inflict(node, lasts) {
    await node.killAll()
    await delay(lasts)
    await node.start()
    return Date.now()
  },
}

/** A server that hangs for longer than 6 s is replaced by its manager, and may not be woken any more. */
const stop = (part: Part): FaultKind => ({
  name: `stop-${part}`,
  lasts: [200, 9_000],
  bound: BOUND.back,
  async inflict(node, lasts) {
    const wake = await node.pause(part)
    await delay(lasts)
    await wake()
    return Date.now()
  },
})

export const faultKinds: readonly FaultKind[] = [
  kill('hub'),
  kill('leaf'),
  kill('host'),
  killNode,
  stop('hub'),
  stop('leaf'),
  stop('host'),
]

/** `kill` chooses all that begin with `kill-`. Throws for a name that chooses none. */
export function choose(names: readonly string[], kinds: readonly FaultKind[]): FaultKind[] {
  const matching = (name: string) => kinds.filter((kind) => kind.name === name || kind.name.startsWith(`${name}-`))
  for (const name of names)
    if (matching(name).length === 0)
      throw new Error(`there is no fault '${name}'; there are ${kinds.map((kind) => kind.name).join(', ')}`)
  return kinds.filter((kind) => names.some((name) => matching(name).includes(kind)))
}
