// The last applied transaction of each flow (source, subscriber, table), which shows how long a fault has effects after its end.

import { setTimeout as delay } from 'node:timers/promises'

type Progress = { at: number; last: string }

export type Recovery = {
  /** ms from the end of the fault to the next applied transaction, in the slowest flow. */
  longest: number
  flow: string
  /** Flows without any applied transaction since. */
  dead: string[]
}

export class Flows {
  readonly #progress = new Map<string, Progress>()

  constructor(nodes: readonly string[], tables: readonly string[]) {
    for (const table of tables)
      for (const source of nodes)
        for (const node of nodes)
          if (node !== source) this.#progress.set(name(node, source, table), { at: 0, last: '' })
  }

  applied(node: string, source: string, table: string, progress: Progress): void {
    this.#progress.set(name(node, source, table), progress)
  }

  /** Waits until every flow has moved after `since`, for at most `timeoutMs` ms. */
  async recovery(since: number, timeoutMs: number): Promise<Recovery> {
    /** The first move of each flow after `since`. */
    const moved = new Map<string, number>()
    for (const end = Date.now() + timeoutMs; moved.size < this.#progress.size && Date.now() < end; await delay(5))
      for (const [flow, { at }] of this.#progress) if (at >= since && !moved.has(flow)) moved.set(flow, at - since)
    const [flow = '', longest = 0] = [...moved].sort(([, a], [, b]) => b - a)[0] ?? []
    return { longest, flow, dead: [...this.#progress.keys()].filter((each) => !moved.has(each)) }
  }

  /** Flows that have not applied the last transaction of their source. */
  behind(lastOf: ReadonlyMap<string, string>): string[] {
    return [...this.#progress]
      .filter(([flow, { last }]) => last !== lastOf.get(sourceOf(flow)))
      .map(([flow, { last }]) => `${flow} is at ${last || 'its start'}`)
  }
}

const name = (node: string, source: string, table: string) => `${table} from ${source} to ${node}`
const sourceOf = (flow: string) => flow.split(' ')[2]!
