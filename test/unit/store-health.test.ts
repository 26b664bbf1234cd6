// Checks of the leaf's store and their results.

import assert from 'node:assert/strict'
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { MeshError, type StreamState } from '../../lib/mesh/mesh.ts'
import type { JetStream } from '../../lib/mesh/nats/jetstream.ts'
import {
  checkDisk,
  checkStore,
  diskReport,
  dropIndexes,
  findStreamFault,
  isStoreError,
} from '../../lib/mesh/nats/store-health.ts'
import { temporaryDirectory } from './store-fixture.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const options = { timeout: 100 }
const refusal = new MeshError('timeout')
const stateOf = (messages: number, firstSequence: number, lastSequence: number): StreamState => ({
  description: '',
  created: '',
  messages,
  firstSequence,
  lastSequence,
})

/** A JetStream with scripted answers that records its calls. */
function answering(answers: Partial<Record<'info' | 'stream' | 'message', unknown>>) {
  const asked: string[] = []
  const answer = (name: keyof typeof answers) => async () => {
    asked.push(name)
    if (answers[name] instanceof Error) throw answers[name]
    return answers[name]
  }
  const jetStream = { info: answer('info'), stream: answer('stream'), message: answer('message') }
  return { asked, jetStream: jetStream as unknown as JetStream }
}

describe('store check', () => {
  it('passes when JetStream and the written stream answer', async () => {
    const { asked, jetStream } = answering({})
    await checkStore(jetStream, 'node1', undefined, options)
    assert.deepEqual(asked, ['info'])
    await checkStore(jetStream, 'node1', dog, options)
    assert.deepEqual(asked, ['info', 'info', 'stream'])
  })

  it('fails when one of them is silent', async () => {
    for (const silent of [{ info: refusal }, { stream: refusal }])
      await assert.rejects(checkStore(answering(silent).jetStream, 'node1', dog, options), { code: 'timeout' })
  })
})

describe('stream fault', () => {
  const fault = (answers: object, state: StreamState) =>
    findStreamFault(answering(answers).jetStream, source, state, options)

  it('is absent when the stream is empty or its last message is readable', async () => {
    assert.equal(await fault({ message: undefined }, stateOf(0, 8, 7)), undefined)
    assert.equal(await fault({ message: {} }, stateOf(3, 5, 7)), undefined)
  })

  it('is found when the message count exceeds the sequences, or the last message is unreadable', async () => {
    assert.match((await fault({ message: {} }, stateOf(20, 1, 0))) ?? '', /reports 20 messages from 1 to 0/)
    const state = stateOf(3, 5, 7)
    assert.match((await fault({ message: undefined, stream: state }, state)) ?? '', /cannot read its last message, 7/)
  })

  it('is absent when the message was removed in between', async () => {
    for (const stream of [undefined, stateOf(0, 8, 7), stateOf(1, 8, 8)])
      assert.equal(await fault({ message: undefined, stream }, stateOf(3, 5, 7)), undefined)
    for (const stream of [stateOf(2, 5, 6), stateOf(0, 1, 0)])
      assert.match((await fault({ message: undefined, stream }, stateOf(3, 5, 7))) ?? '', /cannot read/)
  })

  it('is unknown when the server does not answer', async () => {
    await assert.rejects(fault({ message: refusal }, stateOf(3, 5, 7)), { code: 'timeout' })
  })
})

describe('log lines', () => {
  const errors = [
    "JetStream failed to store a msg on stream 'HDB > A': write /x/1.blk: no space left on device",
    'JetStream out of File resources, will be DISABLED',
    'JetStream out of space, will be DISABLED',
    'Received an error looking up message for consumer: malformed or corrupt message',
    'Critical write error: input/output error',
  ]
  it('with a store error are recognized', () => {
    for (const text of errors) {
      assert.equal(isStoreError('ERR', text), true, text)
      assert.equal(isStoreError('INF', text), false, text)
    }
  })
  it('without a store error are ignored', () => {
    for (const text of [
      'Error trying to connect as leafnode to remote server "127.0.0.1:9931" (attempt 1): connection refused',
      "127.0.0.1:9931 - lid:5 - Leafnode Error 'Authorization Violation'",
    ])
      assert.equal(isStoreError('ERR', text), false, text)
  })
})

it('a disk is low or full when little is free, and neither when it cannot be checked', async (test) => {
  assert.deepEqual(Object.keys(await checkDisk(await temporaryDirectory(test))), [])
  assert.deepEqual(await checkDisk('/no/such/folder'), {})
  const MB = 1024 ** 2
  const reported = (free: number, total: number) => Object.keys(diskReport('/store', free * MB, total * MB))
  // Low: less than 5 % and less than 1 GB, but at least 128 MB. Full: less than 64 MB.
  assert.deepEqual(
    [1025, 1023, 65, 63].map((free) => reported(free, 1e6)),
    [[], ['low'], ['low'], ['full']],
  )
  assert.deepEqual(
    [501, 499].map((free) => reported(free, 10_000)),
    [[], ['low']],
  )
  assert.deepEqual(
    [129, 127].map((free) => reported(free, 200)),
    [[], ['low']],
  )
})

it('only the indexes of a store are dropped', async (test) => {
  const directory = await temporaryDirectory(test)
  const messages = join(directory, 'jetstream', 'HDB', 'streams', 'A', 'msgs')
  await mkdir(messages, { recursive: true })
  const kept = ['1.blk', '2.blk', 'index.key', 'meta.inf']
  for (const name of [...kept, '1.idx', '1.fss', 'index.db']) await writeFile(join(messages, name), '')
  await dropIndexes(directory)
  assert.deepEqual((await readdir(messages)).sort(), kept)
  await dropIndexes(join(directory, 'none'))
})
