// Which copied rows change the local table, and which of these changes its subscribers must learn of.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { KeyedRow, StoredRow } from '../../lib/index.ts'
import { announcedWrites, effectiveRows } from '../../lib/replication/copy/row-effect.ts'

const at = (ms: number, node: string) => `019a0000000${ms}-000000-${node}`
const effectOf = (here: StoredRow | undefined, there: StoredRow, relayEnabled = false) =>
  effectiveRows([{ key: 1, row: there }], {
    host: { readRows: async () => (here ? [{ key: 1, row: here } satisfies KeyedRow] : []) },
    table: { database: 'dev', table: 'dog' },
    primaryKey: 'id',
    acceptOld: false,
    isAnnounced: announcedWrites('node1', relayEnabled),
  })

describe('a copied row is announced', () => {
  it('when it has a write of the local node that is missing here', async () => {
    const { announce } = await effectOf(undefined, { timestamp: at(5, 'node1'), record: { id: 1 } })
    assert.equal(announce, true)
  })

  it('not for a write that is here with the same value in another form', async () => {
    const here = { timestamp: at(5, 'node1'), record: { id: 1, photo: new Uint8Array([1, 2]) } }
    const record = { id: 1, photo: Buffer.from([1, 2]), b: 3 }
    const there = { timestamp: at(5, 'node1'), record, updated: { b: at(9, 'node2') } }
    const { rows, announce } = await effectOf(here, there)
    assert.equal(rows.length, 1, 'the update of node2 is new')
    assert.equal(announce, false)
  })

  it('not by a relaying node for a row that is here with the same value in another form', async () => {
    const record = { id: 1, a: new Uint8Array([1]) }
    const here = { timestamp: at(5, 'node2'), record, updated: { a: at(6, 'node3') } }
    const there = { ...here, record: { id: 1, a: Buffer.from([1]) } }
    assert.equal((await effectOf(here, there, true)).announce, false)
    const { announce } = await effectOf(here, { ...there, timestamp: at(7, 'node2'), updated: {} }, true)
    assert.equal(announce, true)
  })
})
