// Keys of the section that nothing reads are reported with the nearest known key, at opening and once for each edit.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { ClusterError, ClusterManager, type Payload } from '../../lib/index.ts'
import { defaultConfigText } from '../../lib/manifest/config.ts'
import { ConfigText, problemText } from '../../lib/manifest/config-text.ts'
import { MemoryNetwork } from '../../lib/testing.ts'
import { eventually, temporaryDirectory } from '../support/cluster.ts'
import { MemoryHost } from '../support/memory-host.ts'

const warningsOf = (text: string) => new ConfigText(text).warnings.map(problemText)

const harperConfig = `clustering:
  enabled: false
  hubServer:
    cluster: { name: harperdb, network: { port: 9932, routes: [{ host: a, port: 9932 }] } }
    leafNodes: { network: { port: 9931 } }
    network: { port: 9930 }
  leafServer:
    network: { port: 9940, routes: null }
    streams: { maxAge: null, maxBytes: null, maxMsgs: null, maxConsumeMsgs: 100, maxIngestThreads: 2, path: null }
  logLevel: info
  nodeName: node1
  republishMessages: false
  databaseLevel: false
  tls: { certificate: null, certificateAuthority: null, privateKey: null, insecure: true, verify: true }
  user: null
`

describe('unknown keys', () => {
  it('are named with their position and the nearest known key', () => {
    const text = `host: { anything: 1 }
clustering:
  enabled: false
  hubServr:
    network: { port: 1 }
  leafServer: { network: { prot: 2 }, streams: { maxage: 1 } }
  nodes:
    - name: n
      subscriptions:
        - { database: dev, table: dog, publish: true, subscribe: true, subscrib: no }
  elephant: secret
`
    const unknown = 'is an unknown key and has no effect.'
    assert.deepEqual(warningsOf(text), [
      `line 4, column 3: clustering.hubServr ${unknown} Did you mean 'hubServer'?`,
      `line 6, column 28: clustering.leafServer.network.prot ${unknown} Did you mean 'port'?`,
      `line 6, column 50: clustering.leafServer.streams.maxage ${unknown} Did you mean 'maxAge'?`,
      `line 10, column 72: clustering.nodes[0].subscriptions[0].subscrib ${unknown} Did you mean 'subscribe'?`,
      `line 11, column 3: clustering.elephant ${unknown}`,
    ])
  })

  it('do not include those of a new file and of HarperDB', () => {
    for (const text of [defaultConfigText, harperConfig]) {
      assert.deepEqual(new ConfigText(text).problems, [])
      assert.deepEqual(warningsOf(text), [])
    }
  })
})

describe('a section without `enabled`', () => {
  for (const section of ['enable: true', 'nodeName: a', 'enabled: null', 'Enabled: true'])
    it(`is rejected: ${section}`, () => {
      const { config, problems } = new ConfigText(`clustering:\n  ${section}\n`)
      assert.equal(config, undefined)
      assert.equal(problems[0]?.path, 'clustering.enabled')
      assert.match(problems[0]!.message, /^is missing: set `enabled: true`, or `enabled: false`/)
    })
})

describe('a manager', () => {
  async function scene(test: TestContext, text: string) {
    const [directory, remove] = await temporaryDirectory()
    const configFile = join(directory, 'config.yaml')
    await writeFile(configFile, text)
    const warnings: Payload<'config:warning'>[] = []
    const logged: { problems: string[] }[] = []
    const noop = () => {}
    const network = new MemoryNetwork()
    const open = async () => {
      const cluster = await ClusterManager.open({
        configFile,
        host: new MemoryHost(),
        mesh: network.mesh(),
        listeners: { 'config:warning': (warning) => warnings.push(warning) },
        logger: {
          debug: noop,
          info: noop,
          error: noop,
          warn: (details, message) => {
            if (message === 'configuration file has unknown keys') logged.push(details as { problems: string[] })
          },
        },
      })
      test.after(() => cluster.close())
      return cluster
    }
    test.after(remove)
    return { configFile, open, warnings, logged }
  }

  it('reports unknown keys at opening and once for each edit, not for its own changes', async (test) => {
    const text = 'clustering:\n  enabled: false\n  nodeName: a\n  usr: u\n'
    const { configFile, open, warnings, logged } = await scene(test, text)
    const cluster = await open()
    await eventually('the warning arrives', () => warnings.length === 1)
    assert.match(logged[0]!.problems[0]!, /clustering\.usr is an unknown key .* Did you mean 'user'\?$/)
    await cluster.setRoutes({ server: 'hub', routes: [{ host: 'h', port: 1 }] })
    assert.equal(warnings.length, 1)
    await writeFile(configFile, `${await readFile(configFile, 'utf8')}  logLevl: error\n`)
    await eventually('the warning of the edit arrives', () => warnings.length === 2)
    assert.deepEqual(
      warnings[1]!.problems.map(({ path }) => path),
      ['clustering.usr', 'clustering.logLevl'],
    )
    await cluster.setRoutes({ server: 'hub', routes: [{ host: 'i', port: 1 }] })
    assert.deepEqual([warnings.length, logged.length], [2, 2])
  })

  it('does not open with a misspelt `enabled`, and says what was meant', async (test) => {
    const { open } = await scene(test, 'clustering:\n  enable: true\n  nodeName: a\n')
    await assert.rejects(
      open(),
      (error) =>
        error instanceof ClusterError &&
        error.code === 'config_rejected' &&
        /clustering\.enabled is missing.*clustering\.enable is an unknown key.*Did you mean 'enabled'\?/.test(
          error.message,
        ),
    )
  })

  it('shows nothing of the host in errors', async (test) => {
    const { open } = await scene(test, 'password: "hunter2\nclustering:\n  enabled: true\n')
    await assert.rejects(
      open(),
      (error) =>
        error instanceof ClusterError && error.code === 'config_rejected' && !error.message.includes('hunter2'),
    )
  })
})
