// The files of the quarantine: bounded, one for each message, and validated when they are read.

import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import type { Entry } from '../../lib/mesh/mesh.ts'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Quarantine, type QuarantineOptions } from '../../lib/replication/subscribe/quarantine.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }
const entry = (sequence: number, bytes = 10): Entry => ({
  data: Buffer.alloc(bytes, sequence),
  headers: { 'Nats-Msg-Id': `t${sequence}` },
  sequence,
  delivery: sequence,
  time: 1_000 + sequence,
})

async function start(test: TestContext, bounds: Partial<QuarantineOptions> = {}) {
  const [directory, remove] = await temporaryDirectory()
  test.after(remove)
  const options = { directory, maxMessages: 3, maxBytes: 100_000, logger: silentLogger, ...bounds }
  return { directory, options, quarantine: await Quarantine.open(options) }
}

const sequences = (quarantine: Quarantine) => quarantine.list().map(({ sequence }) => sequence)

describe('the quarantine', () => {
  it('holds a maximum number of messages', async (test) => {
    const { quarantine } = await start(test)
    for (const sequence of [1, 2, 3]) await quarantine.put(source, 'e1', entry(sequence), 'bad')
    await assert.rejects(quarantine.put(source, 'e1', entry(4), 'bad'), /full \(3 messages, \d+ bytes\): bad/)
    await quarantine.remove({ source, epoch: 'e1', sequence: 2 })
    await quarantine.put(source, 'e1', entry(4), 'bad')
    assert.deepEqual(sequences(quarantine), [1, 3, 4])
  })

  it('holds a maximum number of bytes, also after a restart, and has space again after a removal', async (test) => {
    // A file is a third larger than its data.
    const { options, quarantine } = await start(test)
    await quarantine.put(source, 'e1', entry(1, 40_000), 'bad')
    await assert.rejects(quarantine.put(source, 'e1', entry(2, 40_000), 'bad'), /full/)
    await quarantine.put(source, 'e1', entry(3, 30_000), 'bad')
    const again = await Quarantine.open(options)
    await assert.rejects(again.put(source, 'e1', entry(4, 10_000), 'bad'), /full/)
    await again.remove({ source, epoch: 'e1', sequence: 1 })
    await again.put(source, 'e1', entry(4, 40_000), 'bad')
    assert.deepEqual(sequences(again), [3, 4])
  })

  it('counts headers and reasons too', async (test) => {
    const { quarantine } = await start(test)
    const large = { ...entry(1), headers: { said: 'x'.repeat(100_000) } }
    await assert.rejects(quarantine.put(source, 'e1', large, 'bad'), /full/)
    await assert.rejects(quarantine.put(source, 'e1', entry(1), 'bad'.repeat(40_000)), /full/)
  })

  it('holds a message once, however often it is put, and returns it unchanged', async (test) => {
    const { directory, options, quarantine } = await start(test)
    for (let times = 0; times < 5; times++) await quarantine.put(source, 'e1', entry(1, 30), 'bad')
    await quarantine.put(source, 'e2', entry(1, 30), 'of another epoch')
    assert.equal((await readdir(directory)).length, 2)
    const again = await Quarantine.open(options)
    assert.deepEqual(
      again
        .list()
        .map(({ epoch }) => epoch)
        .sort(),
      ['e1', 'e2'],
    )
    assert.deepEqual(await again.entry({ source, epoch: 'e1', sequence: 1 }), { ...entry(1, 30), delivery: 0 })
  })

  it('removes temporary files, and leaves unreadable files', async (test) => {
    const { directory, options, quarantine } = await start(test)
    await quarantine.put(source, 'e1', entry(1), 'bad')
    const [name] = await readdir(directory)
    const content = JSON.parse(await readFile(join(directory, name!), 'utf8'))
    await writeFile(join(directory, 'half.json.new'), '{')
    await writeFile(join(directory, 'other.json'), JSON.stringify({ ...content, sequence: 'one' }))
    await writeFile(join(directory, 'garbage.json'), '{')
    const again = await Quarantine.open(options)
    assert.deepEqual(sequences(again), [1])
    assert.deepEqual((await readdir(directory)).sort(), [name!, 'garbage.json', 'other.json'].sort())
  })

  it('removes messages that the checkpoint does not name', async (test) => {
    const { directory, quarantine } = await start(test)
    for (const sequence of [1, 2, 3]) await quarantine.put(source, 'e1', entry(sequence), 'bad')
    await quarantine.reconcile({ ...source, table: 'cat' }, undefined)
    assert.equal(quarantine.size, 3)
    await quarantine.reconcile(source, { e1: [[2, 2]], e2: [[1, 3]] })
    assert.deepEqual([sequences(quarantine), (await readdir(directory)).length], [[2], 1])
  })
})
