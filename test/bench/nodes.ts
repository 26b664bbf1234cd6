// Real nodes for one scene, which end with it in any case.

import { setTimeout as delay } from 'node:timers/promises'
import type { Host } from '../../lib/index.ts'
import { type NodeOptions, TestCluster, type TestNode } from '../support/cluster.ts'

const open = new Set<Scene>()
let interrupted = false
/** ms within which a starting node has started its servers. */
const START = 1_000

/** Ends everything that any scene has started and prevents further starts: for signals. */
export async function closeAll(): Promise<void> {
  interrupted = true
  const close = () => Promise.allSettled([...open].map((scene) => scene.close()))
  await close()
  if (open.size > 0) await delay(START)
  await close()
}

/** Nodes, and other things that end with them. */
export class Scene extends TestCluster {
  readonly #afterwards: (() => Promise<unknown>)[] = []
  protected override readonly checksEvents = false

  /** Called when the nodes have ended. */
  afterwards(work: () => Promise<unknown>): void {
    this.#afterwards.push(work)
  }

  override async close(): Promise<void> {
    try {
      await super.close()
    } finally {
      for (const work of this.#afterwards.splice(0)) await work()
    }
  }
}

/** Yields the rows of `play`. Everything that it starts ends with it. */
export async function* playing<T>(play: (scene: Scene) => AsyncIterable<T>): AsyncGenerator<T> {
  if (interrupted) throw new Error('interrupted')
  const scene = new Scene()
  open.add(scene)
  try {
    yield* play(scene)
  } finally {
    await scene.close()
    open.delete(scene)
  }
}

/** Starts nodes `node1` and so on, one for each database, each with a route to the first. */
export async function startNodes(
  scene: Scene,
  hosts: readonly Host[],
  options: NodeOptions = {},
): Promise<[TestNode, TestNode, ...TestNode[]]> {
  const nodes: TestNode[] = []
  for (const [index, host] of hosts.entries()) {
    const routes = nodes.slice(0, 1).map(({ ports }) => ports.cluster)
    nodes.push(await scene.start(`node${index + 1}`, { ...options, routes, options: { host } }))
  }
  return nodes as [TestNode, TestNode, ...TestNode[]]
}
