// Fake timers of a test runner, which replace the global functions after enmesh was loaded, stop nothing.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MemoryNetwork, startCluster, TestClock } from '../../lib/testing.ts'

const apis = ['setTimeout', 'setInterval', 'setImmediate', 'Date'] as const

for (const stopped of [false, true])
  test(`a cluster in memory works under fake timers, with a clock that ${stopped ? 'stands' : 'runs'}`, async (t) => {
    t.mock.timers.enable({ apis: [...apis] })
    t.mock.method(performance, 'now', () => 0)
    const clock = new TestClock({ stopped })
    const network = new MemoryNetwork({ clock })
    const cluster = await startCluster(2, { network, tables: [{ database: 'dev', table: 'dog' }] })
    try {
      const [one, two] = cluster.nodes
      network.cut('node1', 'node2')
      const down = one!.once('peer:down')
      await one!.host.insert('dev', 'dog', { id: 1, name: 'Rex' })
      await clock.advance(60_000)
      assert.equal((await down).node, 'node2')
      network.heal()
      await cluster.converged()
      assert.deepEqual(two!.host.get('dev', 'dog', 1), { id: 1, name: 'Rex' })
    } finally {
      await cluster.close()
    }
  })
