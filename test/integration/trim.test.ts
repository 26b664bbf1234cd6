// `trim: applied` on real servers: streams get short while they are written, and a subscriber that was away misses nothing.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { test } from 'node:test'
import { allMet, eventually, quiet, streamInfo, subscribe, TestCluster, type TestNode } from '../support/cluster.ts'

test('a stream is trimmed while it is written, and keeps what a node that is away has not', async (t) => {
  const cluster = TestCluster.for(t)
  const tables: [string, string][] = [['dev', 'dog']]
  const files = await cluster.prepare('node1')
  const text = await readFile(files.configFile, 'utf8')
  const trimming = '  leafServer:\n    streams: { trim: applied, trimAfter: 1 }\n'
  await writeFile(files.configFile, text.replace('  leafServer:\n', trimming))
  const one = await cluster.open(files, { tables })
  const two = await cluster.start('node2', { tables, routes: [one.ports.cluster] })
  await allMet([one, two])
  await subscribe(one, two, { dog: 'publish' })
  const client = await cluster.client(one)
  const state = async () => (await streamInfo(client, 'dev', 'dog'))!.state

  const written: string[] = []
  const writeOne = async (node: TestNode) => {
    const id = `id ${written.length}`
    written.push(id)
    await node.host.write(id, { operation: 'insert', database: 'dev', table: 'dog', records: [{ id }] })
  }
  const isTrimmed = eventually('old messages are gone', async () => (await state()).first_seq > 50)
  let isWriting = true
  t.after(() => {
    isWriting = false
  })
  const writing = (async () => {
    while (isWriting) await writeOne(one)
  })()
  await isTrimmed
  await two.cluster.close()
  const before = (await state()).last_seq
  await eventually('more is written', async () => (await state()).last_seq > before + 100)
  isWriting = false
  await writing
  await eventually('trimming stops before what node2 lacks', async () => {
    const { appliedSequence = 0 } = one.cluster.replicas({ database: 'dev', table: 'dog' })[0]!
    const { first_seq: first, last_seq: last } = await state()
    assert.ok(first <= appliedSequence, `${first} is after ${appliedSequence}`)
    return first === appliedSequence && first < last
  })
  await two.reopen()
  await quiet([one, two])
  await eventually('the last message is left', async () => {
    const { messages, first_seq, last_seq } = await state()
    return messages === 1 && first_seq === last_seq
  })
  await one.reopen()
  await allMet([one, two])
  await writeOne(one)
  await quiet([one, two])
  assert.deepEqual(
    two.host.records('dev', 'dog').map(({ id }) => id),
    [...written].sort(),
  )
  assert.equal(two.host.from('node1', 'dog').length, written.length)
  assert.deepEqual([...two.seen('replication:gap'), ...one.seen('replication:diverged')], [])
})
