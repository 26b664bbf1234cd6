// Rows of remote nodes, page by page: every row arrives while others are written, whatever its size, for those who may have it.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import type { Host, KeyedRow, PrimaryKey, StoredRow } from '../../lib/host/host.ts'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { decodeResponse, encode } from '../../lib/peers/protocol.ts'
import { PeerRows } from '../../lib/replication/copy/peer-rows.ts'
import type { PageAnswer } from '../../lib/replication/copy/row-messages.ts'
import { decodePage, encodeKey, encodePage, encodeRow, MAX_ROW_BYTES } from '../../lib/replication/copy/row-page.ts'
import { eventually, MemoryHost, MemoryNetwork, startCluster } from '../../lib/testing.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { startRowNode, withReadRows } from '../support/row-nodes.ts'

const dog = { database: 'dev', table: 'dog' }
const source = { node: 'node1', ...dog }
const signal = new AbortController().signal
const at = (time: number) => makeTimestamp(time, 0, 'node1')
const isPlain = { code: 'peer_rejected' }

function commit(host: MemoryHost, time: number, ...records: Record<string, unknown>[]): void {
  host.commitAs({ id: `t${time}`, timestamp: at(time), writes: [{ operation: 'upsert', ...dog, records }] })
}

/** node1 has the rows; node2 reads them. */
async function pair(test: TestContext, { host, publish = true }: { host: Host; publish?: boolean }) {
  const network = new MemoryNetwork()
  const node1 = await startRowNode(test, network, 'node1', {
    host,
    subscriptions: { node2: [{ ...dog, publish, subscribe: false }] },
  })
  const node2 = await startRowNode(test, network, 'node2', { host: new MemoryHost({ tables: [dog] }) })
  return { network, node1, node2 }
}

async function readAll(rows: PeerRows, turn = (_page: number): void => {}): Promise<KeyedRow[]> {
  const found: KeyedRow[] = []
  for (let after: PrimaryKey | undefined, page = 0; ; page++) {
    const { rows: next } = await rows.page(source, after, { signal })
    if (next.length === 0) return found
    found.push(...next)
    after = next.at(-1)!.key
    turn(page)
  }
}

describe('rows of a remote node', { concurrency: true, timeout: 180_000 }, () => {
  it('arrive page by page while they are written: 10,000 with all kinds of keys and values', async (test) => {
    const host = new MemoryHost({ tables: [dog] })
    const keys = Array.from(
      { length: 10_000 },
      (_, index): PrimaryKey => [index, `k${index}`, BigInt(index), index + 0.5][index % 4]!,
    )
    keys.forEach((id, index) => {
      const values = [
        index,
        `text ${index}`,
        new Date(index),
        BigInt(index),
        Buffer.from([index % 256]),
        null,
        [1, { a: 2 }],
      ]
      commit(host, index + 1, { id, value: values[index % values.length], more: 'x'.repeat(index % 1_000) })
    })
    host.commitAs({ id: 'd', timestamp: at(20_000), writes: [{ operation: 'delete', ...dog, ids: ['k1', 2n] }] })
    host.commitAs({
      id: 'u',
      timestamp: at(20_001),
      writes: [{ operation: 'update', ...dog, records: [{ id: 0, value: 'new' }] }],
    })
    host.horizons.set(JSON.stringify(['dev', 'dog']), at(3))
    const expected = await host.readRows(dog, { limit: 20_000 })
    const { node2 } = await pair(test, { host })
    const pages: number[] = []
    const found = await readAll(node2.rows.peers, (page) => {
      pages.push(page)
      // Bounded: the reading would never end.
      if (page < 15) commit(host, 30_000 + page, { id: `new ${page}` })
    })
    assert.deepEqual(found.slice(0, 10_000), expected)
    assert.ok(found.length > 10_000 && pages.length >= 10, `${found.length} rows in ${pages.length} pages`)
    assert.equal((await node2.rows.peers.page(source, undefined, { signal })).horizon, at(3))
    const some = await node2.rows.peers.rows(source, [...keys.slice(0, 2_000), 'absent'], { signal })
    assert.deepEqual(some, expected.slice(0, 2_000))
  })

  it('of 40 MB arrive in pieces, alone and among small ones, also when they change meanwhile', async (test) => {
    const memory = new MemoryHost({ tables: [dog] })
    const bytes = (fill: number) => Buffer.alloc(40 * 1024 * 1024, fill)
    commit(memory, 1, { id: 'a' })
    commit(memory, 2, { id: 'b', bytes: bytes(1) })
    commit(memory, 3, { id: 'c' })
    let reads = 0
    const host = withReadRows(memory, async (table, selection, readRows) => {
      const changes: Record<number, () => void> = {
        // In the middle of the pieces: larger, then gone, then there again.
        5: () => commit(memory, 5, { id: 'b', bytes: bytes(2) }),
      }
      if (selection.keys) changes[++reads]?.()
      return readRows(table, selection)
    })
    const { node2 } = await pair(test, { host })
    const found = await readAll(node2.rows.peers)
    assert.deepEqual(
      found.map(({ key, row }) => [key, row.timestamp, (row.record?.bytes as Buffer)?.[7]]),
      [
        ['a', at(1), undefined],
        ['b', at(5), 2],
        ['c', at(3), undefined],
      ],
    )
    const byKey = await node2.rows.peers.rows(source, ['c', 'b', 'none', 'a'], { signal })
    assert.deepEqual(
      byKey.map(({ key }) => key),
      ['c', 'b', 'a'],
    )
  })

  it('that are deleted, or dropped, while their pieces are read do not end the reading', async (test) => {
    for (const [drop, expected] of [
      [false, ['a', 'b', 'c']],
      [true, ['a', 'c']],
    ] as const) {
      const memory = new MemoryHost({ tables: [dog] })
      commit(memory, 1, { id: 'a' })
      commit(memory, 2, { id: 'b', bytes: Buffer.alloc(20 * 1024 * 1024) })
      commit(memory, 3, { id: 'c' })
      const host = withReadRows(memory, async (table, selection, readRows) => {
        if (selection.keys) {
          memory.commitAs({ id: 'd', timestamp: at(9), writes: [{ operation: 'delete', ...dog, ids: ['b'] }] })
          if (drop) memory.dropTombstones('dev', 'dog', at(10))
        }
        return readRows(table, selection)
      })
      const { node2 } = await pair(test, { host })
      const found = await readAll(node2.rows.peers)
      assert.deepEqual(
        found.map(({ key }) => key),
        expected,
      )
      assert.equal(found[1]!.row.record?.bytes, undefined)
    }
  })

  it('are refused to a node that the table is not published to, and without the table', async (test) => {
    const host = new MemoryHost({ tables: [dog] })
    const refused = await pair(test, { host, publish: false })
    const page = (rows: PeerRows, table = dog, after?: number) =>
      rows.page({ node: 'node1', ...table }, after, { signal })
    await assert.rejects(page(refused.node2.rows.peers), {
      ...isPlain,
      message: /'dev.dog' is not published to node 'node2'/,
    })
    const { node1, node2 } = await pair(test, { host })
    await assert.rejects(page(node2.rows.peers, { ...dog, table: 'cat' }), { message: /'dev.cat' is not published/ })
    assert.deepEqual((await page(node2.rows.peers)).rows, [])
    host.dropTable('dev', 'dog')
    await assert.rejects(page(node2.rows.peers, dog, 1), { ...isPlain, message: /table 'dev.dog' does not exist/ })
    await assert.rejects(node2.rows.peers.rows(source, [1], { signal }), { message: /table 'dev.dog' does not exist/ })
    for (const rows of [undefined, {}, { ...dog, after: 'text' }, { ...dog, after: Buffer.from([0xc1]) }])
      await assert.rejects(
        node2.peers.request('node1', { operation: 'read_rows', rows } as never, { operation: 'read_rows' }),
        isPlain,
      )
    assert.equal(node1.name, 'node1')
  })

  it('are announced by nodes that serve them only', async (test) => {
    const { node2 } = await pair(test, { host: new MemoryHost({ tables: [dog] }) })
    assert.equal(node2.rows.peers.serves(source), undefined)
    await eventually('the source is known to serve rows', () => node2.rows.peers.serves(source))
    const without = Object.assign(new MemoryHost({ tables: [dog] }), { readRows: undefined }) as unknown as Host
    const other = await pair(test, { host: without })
    other.node2.rows.peers.serves(source)
    await eventually('the source is known to serve none', () => other.node2.rows.peers.serves(source) === false)
    await assert.rejects(other.node2.rows.peers.page(source, undefined, { signal }), {
      message: /Host.readRows is missing/,
    })
  })

  it('are read a few pages at once: further requests wait, and can be aborted', async (test) => {
    const memory = new MemoryHost({ tables: [dog] })
    commit(memory, 1, { id: 1 })
    let running = 0
    let most = 0
    const gates: (() => void)[] = []
    let isOpen = false
    const host = withReadRows(memory, async (table, selection, readRows) => {
      most = Math.max(most, ++running)
      if (!isOpen) await new Promise<void>((resolve) => gates.push(resolve))
      running--
      return readRows(table, selection)
    })
    const { node2 } = await pair(test, { host })
    const abort = new AbortController()
    const pages = Array.from({ length: 10 }, () => node2.rows.peers.page(source, undefined, { signal }))
    await eventually('as many as allowed are read', () => running === 4)
    const aborted = node2.rows.peers.page(source, undefined, { signal: abort.signal })
    const reason = new Error('no longer wanted')
    abort.abort(reason)
    await assert.rejects(aborted, (error: Error & { code?: string }) => error === reason || error.code === 'aborted')
    isOpen = true
    for (const open of gates) open()
    for (const { rows } of await Promise.all(pages)) assert.equal(rows.length, 1)
    assert.equal(most, 4)
  })
})

describe('a running node', () => {
  it('answers requests for the rows of tables that it publishes to the node', async () => {
    const network = new MemoryNetwork()
    await using cluster = await startCluster(2, { network, tables: [dog] })
    const { host } = cluster.node('node1')
    await host.insert('dev', 'dog', { id: 1, name: 'Rex' })
    const mesh = network.mesh('node3')
    await mesh.open('node3', { hub: [], leaf: [] }, { state() {}, rejected() {}, linked() {} })
    const ask = async (node_name: string) => {
      const data = encode({ operation: 'read_rows', node_name, rows: dog })
      return decodeResponse(await mesh.request('node1', data, { timeout: 5_000 }))
    }
    const answer = await ask('node2')
    assert.deepEqual(decodePage((answer!.message as PageAnswer).page).rows, await host.readRows(dog, { limit: 1 }))
    assert.equal((await ask('node3'))!.message, "table 'dev.dog' is not published to node 'node3'")
    await mesh.close()
  })
})

describe('answers of a hostile node', () => {
  const row = (key: PrimaryKey, record: StoredRow['record'] = { id: key }) =>
    encodeRow({ key, row: { timestamp: at(1), ...(record && { record }) } })
  const piece = (more: object = {}) => ({
    piece: Buffer.alloc(10),
    key: encodeKey(1),
    at: 0,
    of: 20,
    version: 'v',
    done: 1,
    ...more,
  })
  /** Asks for a page after row 5, and for row 1, of a node that always gives these answers, the last of them again and again. */
  const ask = (...answers: unknown[]) => {
    let count = 0
    const request = async () => answers[Math.min(count++, answers.length - 1)]
    const peers = new PeerRows({ request, servesRows: () => true, refresh: async () => {}, timers: systemTimers })
    return { page: () => peers.page(source, 5, { signal }), rows: () => peers.rows(source, [1], { signal }) }
  }
  const fault = (message: RegExp) => ({ ...isPlain, message })

  it('are rejected with the reason', async () => {
    for (const [answer, message] of [
      [undefined, /is unreadable/],
      ['text', /is unreadable/],
      [{ busy: 1e9 }, /is unreadable/],
      [{ page: 'text' }, /is unreadable/],
      [{ page: Buffer.from([1]) }, /is invalid: is not a page/],
      [{ page: encodePage([Buffer.from([1])], undefined) }, /contains an invalid row/],
      [piece({ at: 5 }), /pieces of a row that do not fit together/],
      [piece({ piece: Buffer.alloc(0) }), /pieces of a row that do not fit together/],
      [piece({ of: 5 }), /pieces of a row that do not fit together/],
      [piece({ of: MAX_ROW_BYTES + 1 }), /has a row of \d+ bytes/],
      [piece({ key: Buffer.from([0xc0]) }), /contains an invalid primary key/],
      [piece({ horizon: 'x' }), /contains an invalid timestamp/],
      // The same first piece again and again.
      [piece(), /pieces of a row that do not fit together/],
    ] as [unknown, RegExp][]) {
      await assert.rejects(ask(answer).page(), fault(message))
      await assert.rejects(ask(answer).rows(), fault(message))
    }
    await assert.rejects(ask({ page: encodePage([row(4), row(5n)], undefined) }).page(), fault(/ends at the row/))
    for (const rows of [[], [row(6), row(8)]])
      await assert.rejects(ask({ page: encodePage(rows, undefined), last: encodeKey(7) }).page(), fault(/another row/))
    await assert.rejects(ask({ page: encodePage([row(2)], undefined), done: 1 }).rows(), fault(/not asked for/))
    for (const done of [undefined, 0, 2])
      await assert.rejects(ask({ page: encodePage([row(1)], undefined), done }).rows(), fault(/of 1 keys/))
  })

  it('with a row that never ends, or another row than announced, are rejected', async () => {
    const versions = Array.from({ length: 20 }, (_, index) => piece({ version: `${index}` }))
    await assert.rejects(ask(...versions).page(), fault(/changes while it is read/))
    const bytes = row(2)
    const whole = piece({ piece: bytes, of: bytes.byteLength })
    await assert.rejects(ask(whole).page(), fault(/not asked for/))
    await assert.rejects(ask(piece(), { page: encodePage([row(2)], undefined) }).page(), fault(/not asked for/))
  })
})
