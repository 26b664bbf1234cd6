// The timestamp of rows that the database stored before clustering: that of the node's first name, passed to the host before it is used.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { ClusterManager } from '../../lib/index.ts'
import { type ClusterNode, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const dog = { database: 'dev', table: 'dog' }
const baseOf = (node: string) => `000000000000-000000-${node}`

/** Notes the calls that it receives. */
class NotingHost extends MemoryHost {
  readonly calls: string[] = []

  constructor() {
    super({ tables: [dog] })
    for (const method of ['readRows', 'apply', 'readOutbox', 'restamp'] as const) {
      const original = this[method].bind(this) as (...args: unknown[]) => unknown
      const noting = (...args: unknown[]) => {
        this.calls.push(method)
        return original(...args)
      }
      Object.assign(this, { [method]: noting })
    }
  }

  override setBaseTimestamp(timestamp: string): void {
    this.calls.push(timestamp)
    super.setBaseTimestamp(timestamp)
  }
}

async function start(test: TestContext, names: string[]) {
  const network = new MemoryNetwork()
  const cluster = await startCluster(names, { network, tables: [dog], host: () => new NotingHost() })
  test.after(async () => {
    await cluster.close()
    await network.close()
  })
  return cluster.nodes as ClusterNode<NotingHost>[]
}

const stateOf = ({ configFile }: ClusterNode<NotingHost>) => join(dirname(configFile), 'clustering', 'revisions.json')

async function rename({ configFile }: ClusterNode<NotingHost>, from: string, to: string): Promise<void> {
  const text = await readFile(configFile, 'utf8')
  await writeFile(configFile, text.replace(JSON.stringify(from), JSON.stringify(to)))
}

describe('the base timestamp', () => {
  it('is passed to the host before the methods that read or write rows, and differs between nodes', async (test) => {
    const [one, two] = await start(test, ['node1', 'node2'])
    assert.equal(one!.host.calls[0], baseOf('node1'))
    assert.equal(two!.host.calls[0], baseOf('node2'))
    assert.ok(one!.host.calls.includes('readOutbox'))
  })

  it('stays that of the first name when the node is renamed, also twice', async (test) => {
    const [one] = await start(test, ['node1'])
    for (const [from, to] of [
      ['node1', 'berlin'],
      ['berlin', 'paris'],
    ] as const) {
      await one!.stop()
      await rename(one!, from, to)
      one!.host.calls.length = 0
      await one!.start()
      assert.equal(one!.cluster.manifest.nodeName, to)
      assert.equal(one!.host.calls[0], baseOf('node1'))
    }
  })

  it('is that of the last known name when the state has no first name', async (test) => {
    const [one] = await start(test, ['node1'])
    await one!.stop()
    const { firstNode, ...state } = JSON.parse(await readFile(stateOf(one!), 'utf8'))
    assert.equal(firstNode, 'node1')
    await writeFile(stateOf(one!), JSON.stringify(state))
    await rename(one!, 'node1', 'berlin')
    await one!.start()
    const given = one!.host.calls.filter((each) => each.startsWith('0'))
    assert.deepEqual(given, [baseOf('node1'), baseOf('node1')])
  })

  it('is not passed while clustering is disabled, and is fixed when it is enabled first', async (test) => {
    const [directory, remove] = await temporaryDirectory()
    const network = new MemoryNetwork()
    const host = new NotingHost()
    const configFile = join(directory, 'config.yaml')
    const open = async (enabled: boolean, nodeName: string) => {
      await writeFile(configFile, JSON.stringify({ clustering: { enabled, nodeName, user: 'user' } }))
      return ClusterManager.open({ configFile, host, mesh: network.mesh() })
    }
    test.after(async () => {
      await network.close()
      await remove()
    })
    await (await open(false, 'draft')).close()
    assert.equal(host.calls.length, 0)
    for (const name of ['node1', 'node2']) await (await open(true, name)).close()
    assert.deepEqual(
      host.calls.filter((each) => each.startsWith('0')),
      [baseOf('node1'), baseOf('node1')],
    )
  })
})
