// A node whose servers were started anew has forgotten what was asked of it: its streams are read again, though nothing was missed.

import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../support/cluster.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'

describe('the streams of a node are read again', { concurrency: true, timeout: 60_000 }, () => {
  /** Does this, and resolves when node2 has read again. */
  async function readAgain(scene: Scene, what: () => void | Promise<void>): Promise<void> {
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    // It is read again when it is heard for the first time, too.
    await eventually('they know each other', () => node2.events['peer:up']!.length > 0)
    await node1.write(['before'])
    await scene.quiet()
    const restarts = () => node2.cluster.metrics()!.apply.consumerRestarts
    const before = restarts()
    await what()
    await eventually('it is read again', () => restarts() > before)
    await node1.write(['after'])
    await scene.quiet()
  }

  it('when its servers were started anew, though nobody told', async (test) => {
    const scene = new Scene(test)
    await readAgain(scene, () => {
      scene.network.crash('node1', { silent: true })
      scene.network.restart('node1')
    })
  })

  it('when it was not heard for a while', async (test) => {
    const scene = new Scene(test)
    await readAgain(scene, async () => {
      scene.network.cut('node1', 'node2', { silent: true })
      await delay(3_500)
      scene.network.heal()
    })
  })
})

describe('what was committed while a node was closed', { timeout: 60_000 }, () => {
  it('is sent when it is opened, though nothing is published any more', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.cluster.close()
    node1.host.publish = async () => {}
    await node1.write(['meanwhile'])
    await node1.open()
    await eventually('it arrives', () => node2.from(node1).includes('meanwhile'))
  })
})
