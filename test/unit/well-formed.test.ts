// Strings with half of a surrogate pair have no UTF-8 form: transactions with one are refused where they enter, and copies leave the rows out.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Transaction, Write } from '../../lib/index.ts'
import { packr } from '../../lib/replication/packr.ts'
import { encodePart } from '../../lib/replication/wire/part.ts'
import { type ClusterNode, eventually, MemoryHost } from '../../lib/testing.ts'
import { illFormedString, mayBeIllFormed } from '../../lib/util/well-formed.ts'
import { readRecords } from '../host/request.ts'
import { openCluster } from '../support/kit-cluster.ts'
import fc from '../support/properties.ts'

const dog = { database: 'dev', table: 'dog' }
const subscribe = { node_name: 'node1', subscriptions: [{ ...dog, publish: false, subscribe: true }] }
const insert = (...records: Record<string, unknown>[]): Write => ({ operation: 'insert', ...dog, records })
const refused = { code: 'invalid_request', message: /half of a surrogate pair: ".*\\ud83d/ }

/** Places of a transaction where a string may be. */
const places: Record<string, (text: string) => Partial<Transaction>> = {
  'a key': (text) => ({ writes: [insert({ id: text })] }),
  'a deleted key': (text) => ({ writes: [{ operation: 'delete', ...dog, ids: ['a', text] }] }),
  'a value': (text) => ({ writes: [insert({ id: 1, name: text })] }),
  'a nested value': (text) => ({ writes: [insert({ id: 1, list: [{ name: new Map([['a', new Set([text])]]) }] })] }),
  'the name of an attribute': (text) => ({ writes: [insert({ id: 1, [text]: 1 })] }),
  'the user': (text) => ({ user: text, writes: [insert({ id: 1 })] }),
}

describe('encoding', () => {
  it('refuses an ill-formed string, wherever it is and however long, and names it', () => {
    const all = fc.record({
      place: fc.constantFrom(...Object.keys(places)),
      before: fc.string({ unit: 'binary', maxLength: 100 }),
      after: fc.string({ unit: 'grapheme', maxLength: 100 }),
      half: fc.constantFrom('\ud83d', '\udc00', undefined),
    })
    fc.assert(
      fc.property(all, ({ place, before, after, half }) => {
        const text = half === '\udc00' ? `${half}${after}${before}` : `${before}${half ?? ''}x${after}`
        const timestamp = '000000000001-000000-node1'
        const transaction: Transaction = { id: 'a', timestamp, writes: [], ...places[place]!(text) }
        const encode = () => encodePart(transaction, transaction.writes, 'node1')
        if (half === undefined && !/\p{Surrogate}/u.test(text)) encode()
        else assert.throws(encode, /half of a surrogate pair/)
      }),
    )
  })

  it('finds all of them in the bytes that the encoder writes', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)) }),
        (text) => {
          for (const each of [text, `${text}${'x'.repeat(100)}`])
            if (illFormedString(each) !== undefined) assert.ok(mayBeIllFormed(packr.pack([each])))
        },
      ),
    )
  })

  it('takes the replacement character, Hangul, full-width forms and bytes for what they are', () => {
    const record = { id: '\ufffd', name: '힣각！', bytes: Buffer.from('efbfbdeda080', 'hex'), emoji: '🐕' }
    const write = insert(record)
    const transaction = { id: 'a', timestamp: '000000000001-000000-node1', writes: [write] }
    assert.ok(encodePart(transaction, [write], 'node1').byteLength > 0)
  })
})

describe('a transaction with an ill-formed string', () => {
  const open = async (test: Parameters<typeof openCluster>[0]) => {
    const opened = await openCluster(
      test,
      [1, 2].map(() => new MemoryHost({ tables: [dog] })),
    )
    const [one, two] = opened.nodes as [ClusterNode, ClusterNode]
    return { ...opened, one, two }
  }

  it('is rejected by publish and stays in the outbox; later ones are not held up, also after a restart', async (test) => {
    const { one, two, cluster } = await open(test)
    await two.cluster.addNode(subscribe)
    await cluster.converged()
    for (const [index, change] of Object.values(places).entries()) {
      const transaction = {
        id: `bad ${index}`,
        timestamp: one.cluster.timestamp(),
        writes: [],
        ...change('dog \ud83d'),
      }
      one.host.outbox.push(transaction)
      await assert.rejects(one.cluster.publish(transaction), refused)
      await assert.rejects(one.cluster.token(transaction), refused)
    }
    await one.host.insert('dev', 'dog', { id: 'good' })
    await eventually('the good one arrives', () => two.host.get('dev', 'dog', 'good'))
    await one.stop()
    await one.start()
    await one.host.insert('dev', 'dog', { id: 'later' })
    await eventually('the later one arrives', () => two.host.get('dev', 'dog', 'later'))
    assert.equal(one.host.outbox.length, Object.keys(places).length)
    assert.equal(two.host.records('dev', 'dog').length, 2)
  })

  it('is refused before the commit by the databases of the kit and of the example', async (test) => {
    const { one } = await open(test)
    await assert.rejects(one.host.insert('dev', 'dog', { id: '\ud83d' }), TypeError)
    await assert.rejects(one.host.delete('dev', 'dog', '\ud83d'), TypeError)
    assert.throws(() => readRecords({ records: [{ id: 1, name: 'x\ud83d' }] }), { statusCode: 400 })
  })

  it('leaves rows that copies do not bring', async (test) => {
    const { one, two } = await open(test)
    await one.host.insert('dev', 'dog', ...['a', 'b', 'c', 'd'].map((id) => ({ id })))
    const { readRows } = one.host
    const bad = { key: 'b\ud83d', row: { timestamp: one.cluster.timestamp(), record: { id: 'b\ud83d' } } }
    // Behind the row `b`, in every answer.
    one.host.readRows = async (table, selection) => {
      const rows = await readRows.call(one.host, table, selection)
      const at = rows.findIndex(({ key }) => key === 'b')
      return at < 0 ? rows : rows.toSpliced(at + 1, 0, bad)
    }
    await two.cluster.addNode(subscribe)
    await eventually('the copy has ended', () => two.cluster.subscriptions()[0]?.state === 'live')
    assert.deepEqual(
      two.host.records('dev', 'dog').map(({ id }) => id),
      ['a', 'b', 'c', 'd'],
    )
  })
})
