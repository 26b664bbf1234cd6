// From `ClusterManager.open` to a node that accepts transactions, compared with the same two servers started by hand.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { connect } from 'nats'
import { clusterPassword, clusterUser, type TestNode } from '../support/cluster.ts'
import { type Contender, compare } from './compare.ts'
import { playing, type Scene, startNodes } from './nodes.ts'
import { NullHost } from './null-host.ts'
import type { Part, PartOptions, Row } from './report.ts'

const rawName = 'two servers, a client'

const timed = async (work: () => Promise<unknown>) => {
  const started = performance.now()
  await work()
  return { ms: performance.now() - started }
}

/** Starts the servers on the files of the closed node. */
function byHand({ directory, ports }: TestNode): { start(): Promise<void>; stop(): Promise<void> } {
  const running: ChildProcess[] = []
  return {
    start: async () => {
      for (const kind of ['hub', 'leaf'])
        running.push(
          spawn(process.env.NATS_SERVER ?? 'nats-server', ['-c', join(directory, 'clustering', `${kind}.json`)], {
            stdio: 'ignore',
          }),
        )
      const client = await connect({
        servers: `127.0.0.1:${ports.leaf}`,
        user: clusterUser,
        pass: clusterPassword,
        waitOnFirstConnect: true,
        reconnectTimeWait: 5,
        reconnectJitter: 0,
        maxReconnectAttempts: 1_000,
      })
      await (await client.jetstreamManager()).getAccountInfo()
      await client.close()
    },
    stop: async () => {
      for (const child of running.splice(0)) {
        if (child.exitCode !== null || child.signalCode !== null) continue
        const ended = once(child, 'exit')
        child.kill()
        await ended
      }
    },
  }
}

async function* rowsOf(scene: Scene, options: PartOptions): AsyncIterable<Row> {
  const [node] = await startNodes(scene, [new NullHost()])
  const servers = byHand(node)
  scene.afterwards(servers.stop)
  const contenders: Contender[] = [
    {
      name: 'enmesh',
      run: async () => {
        await node.cluster.close()
        return timed(() => node.reopen())
      },
    },
    {
      name: rawName,
      run: async () => {
        await node.cluster.close()
        try {
          return await timed(servers.start)
        } finally {
          await servers.stop()
        }
      },
    },
  ]
  const comparison = { what: 'open to ready, ms', figure: 'ms', enmesh: 'enmesh', limit: rawName }
  yield* await compare(contenders, [comparison], { on: 'no database', entries: 0 }, options)
}

export const startUp: Part = {
  name: 'start-up',
  legend: [
    'A node that starts on its files, alone, until it can write its streams; by hand: until JetStream answers a client.',
  ],
  columns: ['what', 'on', 'limit is', 'streams'],
  run: (options) => playing((scene) => rowsOf(scene, options)),
}
