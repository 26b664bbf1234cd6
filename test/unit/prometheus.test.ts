// Metrics as Prometheus reads them: the example of the README, the names in its table, and the delay of transactions.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { type Meter, metricDefinitions, type RemoteTransaction } from '../../lib/index.ts'
import { createDelayRecorder } from '../../lib/observe/meter.ts'
import { eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { openWithPrometheus } from '../examples/prometheus.ts'
import { prometheusName } from '../support/prometheus-name.ts'
import { temporaryDirectory } from './store-fixture.ts'

const dog = { database: 'dev', table: 'dog' }

describe('the example for Prometheus', { timeout: 30_000 }, () => {
  it('serves every metric under the name of the documentation, and the probe', async (test) => {
    const network = new MemoryNetwork()
    const remote = await startCluster(['node1'], { network, tables: [dog] })
    const directory = await temporaryDirectory(test)
    const configFile = join(directory, 'config.yaml')
    await writeFile(configFile, 'clustering:\n  enabled: true\n  nodeName: node2\n  user: anna\n')
    const host = new MemoryHost({ tables: [dog] })
    const { cluster, server, close } = await openWithPrometheus({ configFile, host, mesh: network.mesh() }, 0)
    test.after(async () => {
      await close()
      await remote.close()
      await network.close()
    })
    if (!server.listening) await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const fetched = (path: string) => fetch(`http://127.0.0.1:${port}${path}`)
    await cluster.updateNode({ node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] })
    await eventually('it is live', () => cluster.subscriptions().every(({ state }) => state === 'live'))
    const applied = cluster.events.once('replication:applied')
    await remote.node('node1').host.insert('dev', 'dog', { id: 1 })
    await applied

    const text = await (await fetched('/metrics')).text()
    const types = new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name, kind]))
    assert.deepEqual(types, new Map(metricDefinitions.map((each) => [prometheusName(each), each.kind])))
    const sample = (line: string) =>
      Number(text.match(new RegExp(`^${line.replace(/[{}]/g, '\\$&')} (\\S+)$`, 'm'))?.[1])
    const scope = 'otel_scope_name="enmesh"'
    const ofTable = 'enmesh_node="node2",enmesh_peer="node1",enmesh_database="dev",enmesh_table="dog"'
    assert.equal(sample(`enmesh_apply_transactions_total{enmesh_node="node2",${scope}}`), 1)
    assert.equal(sample(`enmesh_apply_delay_count{enmesh_node="node2",enmesh_peer="node1",${scope}}`), 1)
    assert.equal(sample(`enmesh_table_lag{${ofTable},${scope}}`), 0)
    assert.equal(sample(`enmesh_table_state{${ofTable},enmesh_state="live",${scope}}`), 1)

    const probe = await fetched('/readyz')
    assert.deepEqual([probe.status, await probe.json()], [200, { ready: true, degraded: [] }])
    assert.equal((await fetched('/')).status, 404)
  })
})

describe('the delay of transactions', () => {
  /** Seconds recorded for transactions that their origins committed at these times by their clocks; it is 100 s here. */
  function recorded(commits: [node: string, ms: number][], ahead: Record<string, number> = {}): number[] {
    const values: number[] = []
    const histogram = { record: (value: number) => void values.push(value) }
    const record = createDelayRecorder({
      meter: { createHistogram: () => histogram } as unknown as Meter,
      node: 'here',
      now: () => 100_000,
      aheadOf: (node) => ahead[node],
    })
    const transactions = commits.map(([node, ms]) => ({ timestamp: makeTimestamp(ms, 0, node), origin: { node } }))
    record({ node: 'source', ...dog }, transactions as RemoteTransaction[])
    return values
  }

  it('is the time since the timestamp, and never negative', () => {
    const [one, two] = ['one', 'two']
    assert.deepEqual(
      recorded([
        [one, 99_999],
        [one, 90_000],
        [two, 100_500],
      ]),
      [0.001, 10, 0],
    )
  })

  it('considers clocks that differ by more than a heartbeat takes', () => {
    const commits: [string, number][] = [
      ['behind', 39_000],
      ['ahead', 159_000],
      ['close', 99_000],
    ]
    assert.deepEqual(recorded(commits, { behind: 60_000, ahead: -60_000, close: 900 }), [1, 1, 1])
  })
})
