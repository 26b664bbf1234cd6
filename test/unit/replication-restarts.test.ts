// The servers of a restarted node have lost their consumers: its streams are read again, although no message is missing.

import { describe, it } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '../support/cluster.ts'
import { type MemoryNode, Scene } from '../support/memory-scene.ts'

describe('the streams of a node are read again', { concurrency: true, timeout: 60_000 }, () => {
  /** Runs `change`, and resolves when node2 has read again. */
  async function readAgain(scene: Scene, change: () => void | Promise<void>): Promise<void> {
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    // The first heartbeat restarts reading too.
    await eventually('node2 receives a heartbeat', () => node2.events['peer:up']!.length > 0)
    await node1.write(['before'])
    await scene.quiet()
    const restarts = () => node2.cluster.metrics()!.apply.consumerRestarts
    const before = restarts()
    await change()
    await eventually('it is read again', () => restarts() > before)
    await node1.write(['after'])
    await scene.quiet()
  }

  it('after an unnoticed restart of its servers', async (test) => {
    const scene = new Scene(test)
    await readAgain(scene, () => {
      scene.network.crash('node1', { silent: true })
      scene.network.restart('node1')
    })
  })

  it('after a pause of its heartbeats in which messages were lost', async (test) => {
    const scene = new Scene(test)
    await readAgain(scene, async () => {
      scene.network.cut('node1', 'node2', { silent: true })
      await scene.nodes.find(({ name }) => name === 'node1')!.write(['meanwhile'])
      await delay(3_500)
      scene.network.heal()
    })
  })
})

describe('a transaction that was committed while its node was closed', { timeout: 60_000 }, () => {
  it('is published when the node opens, without another call of publish', async (test) => {
    const scene = new Scene(test)
    const [node1, node2] = (await scene.mesh('node1', 'node2')) as [MemoryNode, MemoryNode]
    await node1.cluster.close()
    node1.host.publish = async () => {}
    await node1.write(['meanwhile'])
    await node1.open()
    await eventually('it arrives', () => node2.from(node1).includes('meanwhile'))
  })
})
