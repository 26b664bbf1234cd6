// Decompression bombs: small messages that decode to gigabytes of objects are rejected before decoding, and ordinary messages never are.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Packr } from 'msgpackr'
import * as protocol from '../../lib/peers/protocol.ts'
import { decodeStored, Frame, storedId } from '../../lib/replication/wire/frame.ts'
import { checkDecodeLimits } from '../../lib/util/decode-limits.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'

const isCostly = (data: Uint8Array, max?: number) => checkDecodeLimits(data, max) !== undefined
const seed = seedOf()
console.log(`SEED=${seed}`)
const packr = new Packr({ useRecords: false, mapsAsObjects: true, useBigIntExtension: true, moreTypes: true })

/** A message of `bytes` bytes: one array that repeats `filling`. */
function bomb(bytes: number, ...filling: number[]): Buffer {
  const data = Buffer.alloc(bytes, Buffer.from(filling))
  data[0] = 0xdd
  data.writeUInt32BE(Math.floor((bytes - 5) / filling.length), 1)
  return data
}

/** The expected cost: values, and 8 for each container. */
function costOf(value: unknown): number {
  if (Array.isArray(value)) return value.reduce<number>((sum, each) => sum + costOf(each), 8)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return 1
  return Object.values(value).reduce<number>((sum, each) => sum + 1 + costOf(each), 8)
}

describe('the cost of a message', () => {
  it('is the number of its values, of all types', () => {
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 5 },
        fc.oneof(
          fc.integer(),
          fc.double(),
          fc.bigInt({ min: 2n ** 64n }),
          fc.boolean(),
          fc.constant(null),
          fc.string({ maxLength: 300 }),
          fc.uint8Array({ maxLength: 300 }),
          fc.float32Array({ maxLength: 100 }),
        ),
        fc.array(tie('tree'), { maxLength: 40 }),
        fc.dictionary(fc.string({ maxLength: 40 }), tie('tree'), { maxKeys: 40 }),
      ),
    }))
    const property = fc.property(fc.array(tree, { maxLength: 20 }), (value) => {
      const cost = costOf(value)
      const data = packr.pack(value)
      assert.deepEqual([isCostly(data, cost), isCostly(data, cost - 1)], [false, true])
    })
    fc.assert(property, { seed, numRuns: 500 })
  })

  it('is computed for arbitrary bytes', () => {
    const property = fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(50), (data, max) => {
      assert.equal(typeof isCostly(data, max), 'boolean')
    })
    fc.assert(property, { seed, numRuns: 5_000 })
  })

  it('is within the limit for half a megabyte of values and for large rows', () => {
    assert.equal(isCostly(bomb(512 * 1024, 0x80)), false)
    const row = Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`attribute${index}`, 'some text of it']))
    assert.equal(isCostly(packr.pack(Array.from({ length: 100_000 }, () => row))), false)
    assert.equal(isCostly(packr.pack({ picture: Buffer.alloc(31 * 1024 * 1024, 0x80) })), false)
  })

  it('exceeds the limit for many empty containers, for many small numbers, and inside an extension', () => {
    const size = 30 * 1024 * 1024
    for (const filling of [[0x80], [0x90], [0xc0], [0x01], [0xde, 0, 0], [0xdf, 0, 0, 0, 0], [0xa0], [0xc4, 0]])
      assert.equal(isCostly(bomb(size, ...filling)), true, `${filling}`)
    const hidden = bomb(size, 0x80)
    hidden[0] = 0xc9
    hidden.writeUInt32BE(size - 6, 1)
    hidden[5] = 0x73
    assert.equal(isCostly(hidden), true)
  })

  it('does not matter for unsupported extensions, which are always rejected: pointers, large records, bundled strings', () => {
    assert.match(checkDecodeLimits(Uint8Array.from([0xd5, 0x72, 0, 0, 0x90])) ?? '', /unsupported MessagePack/)
    for (const type of [0x62, 0x69, 0x70, 0x01, 0xfe])
      for (const data of [
        [0xd4, type, 0],
        [0xc7, 1, type, 0],
        [0x91, 0xd6, type, 0, 0, 0, 0],
      ])
        assert.match(checkDecodeLimits(Uint8Array.from(data)) ?? '', /unsupported MessagePack extension/, `${data}`)
    assert.match(checkDecodeLimits(Uint8Array.from([0x91, 0xc1])) ?? '', /unsupported MessagePack extension/)
    const values = [undefined, 2n ** 70n, new Float64Array(2), new Date(0), new Set([1]), /x/, new Error('x')]
    for (const value of values) assert.equal(checkDecodeLimits(packr.pack(value)), undefined, String(value))
  })

  it('does not matter for circular structures: pointers are rejected', () => {
    const circle: Record<string, unknown> = { operation: 'insert', schema: 'dev', table: 'dog', records: [] }
    circle.next = circle
    const data = new Packr({ useRecords: false, mapsAsObjects: true, structuredClone: true }).pack(circle)
    const entry = { data, headers: {}, sequence: 1, delivery: 1, time: 0 }
    const source = { node: 'node1', database: 'dev', table: 'dog' }
    assert.throws(() => decodeStored(source, Frame.read(entry).part(0)), { name: 'WireError' })
    assert.equal(protocol.decodeResponse(data), undefined)
  })

  it('is checked before a remote message is decoded', () => {
    const source = { node: 'node1', database: 'dev', table: 'dog' }
    const data = bomb(30 * 1024 * 1024, 0x80)
    const entry = { data, headers: {}, sequence: 1, delivery: 1, time: 0 }
    const part = Frame.read(entry).part(0)
    const expected = { name: 'WireError', message: /more than 4194304 values/ }
    for (const format of ['single', 'part'] as const)
      assert.throws(() => decodeStored(source, { ...part, format }), expected)
    assert.equal(storedId({ ...part, format: 'part' }), '')
    const headers = { v: '1', epoch: 'e1', first: '1', count: '1' }
    // The list of a frame is bounded by itself, and its byte strings are not decoded with it.
    assert.match(Frame.read({ ...entry, headers }).fault!, /more than 4096$/)
    assert.equal(protocol.decodeRequest(bomb(15 * 1024 * 1024, 0x80)), undefined)
  })
})
