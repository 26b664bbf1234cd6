// The files of the quarantine: bounded, one for each transaction, and validated when they are read.

import assert from 'node:assert/strict'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { silentLogger } from '../../lib/observe/logger.ts'
import {
  Quarantine,
  type QuarantinedContent,
  type QuarantineOptions,
} from '../../lib/replication/subscribe/quarantine.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }
const part = (index: number, bytes = 10, epoch = 'e1'): QuarantinedContent => ({
  format: 'part',
  data: Buffer.alloc(bytes, index),
  headers: {},
  node: 'node1',
  epoch,
  index,
  count: 1,
  sequence: 7,
  time: 1_000 + index,
})

async function start(test: TestContext, bounds: Partial<QuarantineOptions> = {}) {
  const [directory, remove] = await temporaryDirectory()
  test.after(remove)
  const options = { directory, maxMessages: 3, maxBytes: 100_000, logger: silentLogger, ...bounds }
  return { directory, options, quarantine: await Quarantine.open(options) }
}

const indexes = (quarantine: Quarantine) => quarantine.list().map(({ index }) => index)

describe('the quarantine', () => {
  it('holds a maximum number of files', async (test) => {
    const { quarantine } = await start(test)
    for (const index of [1, 2, 3]) await quarantine.put(source, part(index), 'bad')
    await assert.rejects(quarantine.put(source, part(4), 'bad'), /full \(3 messages, \d+ bytes\): bad/)
    await quarantine.remove({ source, epoch: 'e1', index: 2 })
    await quarantine.put(source, part(4), 'bad')
    assert.deepEqual(indexes(quarantine), [1, 3, 4])
  })

  it('holds a maximum number of bytes, also after a restart, and has space again after a removal', async (test) => {
    // A file is a third larger than its data.
    const { options, quarantine } = await start(test)
    await quarantine.put(source, part(1, 40_000), 'bad')
    await assert.rejects(quarantine.put(source, part(2, 40_000), 'bad'), /full/)
    await quarantine.put(source, part(3, 30_000), 'bad')
    const again = await Quarantine.open(options)
    await assert.rejects(again.put(source, part(4, 10_000), 'bad'), /full/)
    await again.remove({ source, epoch: 'e1', index: 1 })
    await again.put(source, part(4, 40_000), 'bad')
    assert.deepEqual(indexes(again), [3, 4])
  })

  it('counts the messages of each source without reading through all of them', async (test) => {
    const { options, quarantine } = await start(test)
    const cat = { ...source, table: 'cat' }
    const counts = (of: Quarantine) => [source, cat, { ...source, node: 'node2' }].map((each) => of.count(each))
    assert.deepEqual(counts(quarantine), [0, 0, 0])
    for (const index of [1, 1, 2]) await quarantine.put(source, part(index), 'bad')
    await quarantine.put(cat, part(1), 'bad')
    assert.deepEqual(counts(quarantine), [2, 1, 0])
    assert.deepEqual(counts(await Quarantine.open(options)), [2, 1, 0])
    await quarantine.remove({ source, epoch: 'e1', index: 1 })
    await quarantine.remove({ source, epoch: 'e1', index: 1 })
    await quarantine.remove({ source: cat, epoch: 'e1', index: 1 })
    assert.deepEqual(counts(quarantine), [1, 0, 0])
  })

  it('counts headers and reasons too', async (test) => {
    const { quarantine } = await start(test)
    const large: QuarantinedContent = { ...part(1), format: 'message', headers: { said: 'x'.repeat(100_000) } }
    await assert.rejects(quarantine.put(source, large, 'bad'), /full/)
    await assert.rejects(quarantine.put(source, part(1), 'bad'.repeat(40_000)), /full/)
  })

  it('holds a transaction once, however often it is put, and returns it unchanged', async (test) => {
    const { directory, options, quarantine } = await start(test)
    for (let times = 0; times < 5; times++) await quarantine.put(source, part(1, 30), 'bad')
    await quarantine.put(source, part(1, 30, 'e2'), 'of another epoch')
    assert.equal((await readdir(directory)).length, 2)
    const again = await Quarantine.open(options)
    assert.deepEqual(
      again
        .list()
        .map(({ epoch }) => epoch)
        .sort(),
      ['e1', 'e2'],
    )
    assert.deepEqual(await again.content({ source, epoch: 'e1', index: 1 }), part(1, 30))
  })

  it('removes temporary files, and leaves unreadable files', async (test) => {
    const { directory, options, quarantine } = await start(test)
    await quarantine.put(source, part(1), 'bad')
    const [name] = await readdir(directory)
    const content = JSON.parse(await readFile(join(directory, name!), 'utf8'))
    await writeFile(join(directory, 'half.json.new'), '{')
    await writeFile(join(directory, 'other.json'), JSON.stringify({ ...content, index: 'one' }))
    await writeFile(join(directory, 'garbage.json'), '{')
    const again = await Quarantine.open(options)
    assert.deepEqual(indexes(again), [1])
    assert.deepEqual((await readdir(directory)).sort(), [name!, 'garbage.json', 'other.json'].sort())
  })

  it('removes what the checkpoint does not name', async (test) => {
    const { directory, quarantine } = await start(test)
    for (const index of [1, 2, 3]) await quarantine.put(source, part(index), 'bad')
    await quarantine.reconcile({ ...source, table: 'cat' }, undefined)
    assert.equal(quarantine.size, 3)
    await quarantine.reconcile(source, { e1: [[2, 2]], e2: [[1, 3]] })
    assert.deepEqual([indexes(quarantine), (await readdir(directory)).length], [[2], 1])
  })

  it('is not opened with a file of a later version', async (test) => {
    const { directory, options, quarantine } = await start(test)
    await quarantine.put(source, part(1), 'bad')
    const [name] = await readdir(directory)
    const content = JSON.parse(await readFile(join(directory, name!), 'utf8'))
    await writeFile(join(directory, name!), JSON.stringify({ v: content.v + 1, other: true }))
    await assert.rejects(Quarantine.open(options), { code: 'version_unsupported', message: /version 2.*version 1/ })
    assert.equal((await readdir(directory)).length, 1, 'the file stays')
  })
})
