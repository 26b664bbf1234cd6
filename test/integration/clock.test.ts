// Real servers: a process whose clock is days ahead, corrected and restamped while both nodes write.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { eventually, subscriptionsOf, TestCluster } from '../support/cluster.ts'
import { insert } from '../support/memory-host.ts'
import { commandsTo, type NodeState } from '../support/spawned-commands.ts'

const DAY_MS = 86_400_000
const tables: [string, string][] = [['dev', 'dog']]

it('a process whose clock was two days ahead takes part again, and both databases are equal', async (test) => {
  const cluster = TestCluster.for(test)
  const one = await cluster.start('node1', { tables })
  const { child } = await cluster.spawn('node2', { tables, routes: [one.ports.cluster] })
  const two = commandsTo(child)
  const rows = () => two<Record<string, unknown>[]>({ command: 'rows', table: 'dog' })
  const state = () => two<NodeState>({ command: 'status' })
  let id = 0
  const write = async () => {
    const next = ++id
    await two({ command: 'insert', table: 'dog', record: { id: `node2 ${next}` } })
    await one.host.write(`node1 ${next}`, insert('dog', { id: `node1 ${next}` }), insert('dog', { id: 'same', next }))
  }
  await eventually('they agree', () =>
    one.cluster.addNode({ node_name: 'node2', subscriptions: subscriptionsOf({ dog: 'both' }) }).catch(() => undefined),
  )
  await write()
  await eventually('node1 has the row of node2', () => one.host.get('dev', 'dog', 'node2 1'))

  await two({ command: 'clock', ms: 2 * DAY_MS })
  await write()
  await two({ command: 'insert', table: 'dog', record: { id: 'same', next: 'future' } })
  await eventually('it notices', async () => (await state()).clock.reason === 'wall-clock')
  await eventually('node1 has it in quarantine', () => one.cluster.quarantine.list().length === 2)
  await assert.rejects(two({ command: 'restamp' }), /clock of node 'node2' is \d+ s ahead/)

  await two({ command: 'clock', ms: 0 })
  await eventually('its timestamps are ahead', async () => (await state()).clock.reason === 'timestamps')
  await write()
  await two({ command: 'restamp' })
  await write()
  await eventually('nothing is in quarantine', () => one.cluster.quarantine.list().length === 0)
  await eventually('both have all rows', async () => {
    const [here, there] = [one.host.records('dev', 'dog'), await rows()]
    return here.length === 9 && JSON.stringify(here) === JSON.stringify(there)
  })
  assert.equal(one.host.get('dev', 'dog', 'same')!.next, 4)
  assert.deepEqual((await state()).clock.reason, undefined)
  await one.cluster.updateNode({ node_name: 'node2', subscriptions: subscriptionsOf({ dog: 'both' }) })
})
