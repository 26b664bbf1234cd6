// Whether the local leaf can be written: it is replaced when its store is not trusted, and repaired before the next start.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { StreamState } from '../../lib/mesh/mesh.ts'
import { JetStream, streamName } from '../../lib/mesh/nats/jetstream.ts'
import { LeafHealth } from '../../lib/mesh/nats/leaf-health.ts'
import type { LocalConnections } from '../../lib/mesh/nats/local-connections.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { eventually } from '../../lib/testing.ts'
import { ScriptedConnection } from '../support/scripted-connection.ts'
import { temporaryDirectory } from './store-fixture.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const stored: StreamState = { description: '', created: '', messages: 3, firstSequence: 1, lastSequence: 3 }
const options = { timeout: 100 }
const notFound = { error: { code: 404, err_code: 10037, description: 'no message found' } }

async function start(test: TestContext) {
  const storeDirectory = await temporaryDirectory(test)
  const server = new ScriptedConnection()
  const asked: string[] = []
  const scripted = { answers: true, readable: true, session: 'one' }
  server.serve = async (subject) => {
    const verb = /API\.(INFO|\w+\.\w+)/.exec(subject)![1]!
    asked.push(verb)
    if (!scripted.answers) throw new Error('no answer')
    if (verb === 'STREAM.MSG') return scripted.readable ? { message: {} } : notFound
    if (verb === 'STREAM.INFO') return { config: {}, created: '', state: { messages: 3, first_seq: 1, last_seq: 3 } }
    return { streams: 1, consumers: 0 }
  }
  const states: string[] = []
  const replaced: string[] = []
  const connections = {
    requireLeaf() {},
    get leafSession() {
      return scripted.session
    },
  } as unknown as LocalConnections
  const health = new LeafHealth({
    node: 'node1',
    storeDirectory,
    jetStream: new JetStream(() => server.connection),
    connections,
    writtenTable: () => undefined,
    replaceLeaf: (reason) => replaced.push(reason),
    changed: (state, reason) => states.push(reason ? `${state}: ${reason}` : state),
    logger: silentLogger,
  })
  test.after(() => health.close())
  return { health, scripted, asked, states, replaced, storeDirectory }
}

describe('the health of a leaf', () => {
  it('is up after the start, down with a reason, and up again when the store answers', async (test) => {
    const { health, scripted, states } = await start(test)
    await health.started()
    scripted.answers = false
    health.markDown('the connection was lost')
    health.markDown('again')
    health.reportDown('no answer')
    health.reportDown('no answer')
    const recovered = health.recover()
    assert.deepEqual(states, ['up', 'down: the connection was lost', 'down: no answer'])
    scripted.answers = true
    await recovered
    assert.deepEqual(states.slice(3), ['up'])
  })

  it('rejects a probe without an answer, and does not change then', async (test) => {
    const { health, scripted, states } = await start(test)
    await health.started()
    const { signal } = new AbortController()
    await health.probe(signal)
    scripted.answers = false
    await assert.rejects(health.probe(signal), /no answer/)
    assert.deepEqual(states, ['up'])
  })

  it('verifies each stream once a session', async (test) => {
    const { health, scripted, asked } = await start(test)
    await health.verify(source, stored, options)
    await health.verify(source, stored, options)
    assert.deepEqual(asked, ['STREAM.MSG'])
    scripted.session = 'two'
    await health.verify(source, stored, options)
    assert.deepEqual(asked, ['STREAM.MSG', 'STREAM.MSG'])
  })

  it('replaces the leaf for a faulty stream, and moves the stream away when that did not help', async (test) => {
    const { health, scripted, replaced, storeDirectory } = await start(test)
    const directory = join(storeDirectory, 'jetstream', 'HDB', 'streams', streamName(source))
    await mkdir(directory, { recursive: true })
    await writeFile(join(directory, 'index.db'), '')
    scripted.readable = false
    const faulty = { code: 'disconnected', message: /cannot read its last message, 3/ }
    await assert.rejects(health.verify(source, stored, options), faulty)
    assert.equal(replaced.length, 1)
    // The next start reads all messages instead of the indexes.
    await health.prepare()
    assert.deepEqual([existsSync(directory), existsSync(join(directory, 'index.db'))], [true, false])
    health.returned()
    scripted.session = 'two'
    await assert.rejects(health.verify(source, stored, options), faulty)
    await health.prepare()
    assert.equal(existsSync(directory), false)
    assert.equal((await readdir(join(storeDirectory, 'damaged'))).length, 1)
  })

  it('replaces the leaf for an error of the store in its log, not for other lines', async (test) => {
    const { health, replaced } = await start(test)
    health.onLogLine('INF', 'no space left on device')
    health.onLogLine('ERR', 'slow consumer')
    health.onLogLine('ERR', 'JetStream failed to store a message')
    assert.deepEqual(replaced, ['JetStream failed to store a message'])
  })

  it('changes nothing any more when it is closed', async (test) => {
    const { health, states, replaced, scripted } = await start(test)
    await health.started()
    scripted.answers = false
    health.markDown('lost')
    const recovery = health.recover()
    health.close()
    scripted.answers = true
    await recovery
    health.markDown('again')
    health.onLogLine('ERR', 'no space left on device')
    await eventually('nothing changes', () => states.length === 2)
    assert.deepEqual([states, replaced], [['up', 'down: lost'], []])
  })
})
