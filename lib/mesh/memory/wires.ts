// The links between pairs of nodes. Messages of a link arrive in the order of sending, or a cut loses them.

import { setImmediate, type Timers } from '../../util/timers.ts'

/** `notified`: both ends are notified; `silent`: messages are lost and no node is notified. */
export type CutMode = 'notified' | 'silent'

type Wire = {
  readonly ends: readonly [string, string]
  cut: CutMode | undefined
  /** ms in each direction. */
  delay: number
  /** On the way, oldest first, from `head` on: taking from the front of a long array is slow. */
  queue: ((() => void) | undefined)[]
  head: number
  /** Incremented when all messages in flight are lost. */
  generation: number
}

/** Stands for the delivery of one message of a wire. */
type Token = { wire: Wire; generation: number }

export class Wires {
  readonly #timers: Timers
  readonly #random: (() => number) | undefined
  /** By both ends, in either order. */
  readonly #wires = new Map<string, Map<string, Wire>>()
  /** Nodes that are cut from all nodes, also from those that join later. */
  readonly #isolated = new Map<string, CutMode>()
  /** Cancel the delayed deliveries. */
  readonly #delayed = new Set<() => void>()
  #tokens: Token[] = []
  #scheduled = false

  /** `random` shuffles the order among the wires with messages to deliver. Without it the order of sending is kept. */
  constructor(timers: Timers, random?: () => number) {
    this.#timers = timers
    this.#random = random
  }

  /** Creates the wire, so that cuts of all wires include it. */
  join(a: string, b: string): void {
    this.#between(a, b)
  }

  cutBetween(a: string, b: string): CutMode | undefined {
    return this.#between(a, b).cut
  }

  delayBetween(a: string, b: string): number {
    return this.#between(a, b).delay
  }

  send(from: string, to: string, deliver: () => void): void {
    const wire = this.#between(from, to)
    if (wire.cut) return
    wire.queue.push(deliver)
    const token = { wire, generation: wire.generation }
    if (wire.delay === 0) return this.#enqueue(token)
    const cancel = this.#timers.after(wire.delay, () => {
      this.#delayed.delete(cancel)
      this.#enqueue(token)
    })
    this.#delayed.add(cancel)
  }

  /** Without `b`: cuts `a` from all nodes. Returns the pairs to notify. */
  cut(a: string, b: string | undefined, mode: CutMode): (readonly [string, string])[] {
    if (b === undefined) this.#isolated.set(a, mode)
    const wires = this.#select(a, b)
    const newlyCut = wires.filter((wire) => mode === 'notified' && wire.cut !== 'notified')
    for (const wire of wires) {
      wire.cut = mode
      this.#dropMessages(wire)
    }
    return newlyCut.map(({ ends }) => ends)
  }

  /** Without `b`: heals all wires of `a`; without both: all wires. Returns the nodes to notify. */
  heal(a?: string, b?: string): Set<string> {
    if (a === undefined) this.#isolated.clear()
    else if (b === undefined) this.#isolated.delete(a)
    const healed = new Set<string>()
    for (const wire of this.#select(a, b)) {
      if (wire.cut === 'notified') for (const end of wire.ends) healed.add(end)
      wire.cut = undefined
    }
    return healed
  }

  delay(a: string, b: string, ms: number): void {
    this.#between(a, b).delay = ms
  }

  /** Drops all messages in flight from and to this node. */
  clear(node: string): void {
    for (const wire of this.#of(node).values()) this.#dropMessages(wire)
  }

  close(): void {
    for (const wires of this.#wires.values()) for (const wire of wires.values()) this.#dropMessages(wire)
    for (const cancel of this.#delayed) cancel()
    this.#delayed.clear()
  }

  #between(a: string, b: string): Wire {
    const known = this.#wires.get(a)?.get(b)
    if (known) return known
    const cut = a === b ? undefined : (this.#isolated.get(a) ?? this.#isolated.get(b))
    const wire: Wire = { ends: a < b ? [a, b] : [b, a], cut, delay: 0, queue: [], head: 0, generation: 0 }
    this.#of(a).set(b, wire)
    this.#of(b).set(a, wire)
    return wire
  }

  #select(a?: string, b?: string): Wire[] {
    if (a !== undefined && b !== undefined) return [this.#between(a, b)]
    const nodes = a === undefined ? [...this.#wires.keys()] : [a]
    const wires = new Set(nodes.flatMap((node) => [...this.#of(node).values()]))
    return [...wires].filter(({ ends }) => ends[0] !== ends[1])
  }

  #of(node: string): Map<string, Wire> {
    const known = this.#wires.get(node)
    if (known) return known
    const wires = new Map<string, Wire>()
    this.#wires.set(node, wires)
    return wires
  }

  #dropMessages(wire: Wire): void {
    wire.queue = []
    wire.head = 0
    wire.generation++
  }

  #enqueue(token: Token): void {
    this.#tokens.push(token)
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => this.#deliver())
  }

  /** Delivers the messages of this turn of the event loop; messages that they cause wait for the next. A token delivers the oldest message of its wire. */
  #deliver(): void {
    this.#scheduled = false
    const tokens = this.#tokens
    this.#tokens = []
    if (this.#random) shuffle(tokens, this.#random)
    const failures: unknown[] = []
    for (const { wire, generation } of tokens) {
      if (generation !== wire.generation) continue
      try {
        takeOldest(wire)?.()
      } catch (error) {
        failures.push(error)
      }
    }
    // A handler that throws is a bug: report it after the other deliveries.
    if (failures.length > 0) throw failures[0]
  }
}

/** Taken off the wire. */
function takeOldest(wire: Wire): (() => void) | undefined {
  const message = wire.queue[wire.head]
  wire.queue[wire.head++] = undefined
  if (wire.head >= 1024 && wire.head * 2 >= wire.queue.length) {
    wire.queue = wire.queue.slice(wire.head)
    wire.head = 0
  }
  return message
}

function shuffle<T>(items: T[], random: () => number): void {
  for (let index = items.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1))
    const item = items[index]!
    items[index] = items[other]!
    items[other] = item
  }
}
