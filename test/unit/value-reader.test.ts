// The reader of usual values reads what the general decoder reads, or leaves it to that decoder.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { packr } from '../../lib/replication/packr.ts'
import { UnusualValueError, ValueReader } from '../../lib/replication/wire/value-reader.ts'
import { checkDecodeLimits } from '../../lib/util/decode-limits.ts'
import fc from '../support/properties.ts'
import { seedOf } from '../support/random.ts'

const seed = seedOf()
console.log(`SEED=${seed}`)

const reader = new ValueReader()
const unusual = Symbol('unusual')

/** Between other bytes, as a part is in its frame. */
function read(data: Uint8Array, before = 0, after = 0): unknown {
  const all = Buffer.concat([Buffer.alloc(before, 0x91), data, Buffer.alloc(after, 0x91)])
  try {
    reader.begin(all, before, before + data.byteLength)
    const value = reader.value()
    reader.finish()
    return value
  } catch (error) {
    if (error instanceof UnusualValueError) return unusual
    throw error
  }
}

const usual = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: 'grapheme-ascii', maxLength: 300 }),
    fc.integer(),
    fc.double(),
    fc.constantFrom(
      0,
      -1,
      -32,
      -33,
      -128,
      -129,
      127,
      128,
      255,
      256,
      65_535,
      65_536,
      -32_768,
      -32_769,
      2 ** 32 - 1,
      2 ** 53,
    ),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(fc.string({ maxLength: 40 }), tie('value'), { maxKeys: 20, noNullPrototype: true }),
  ),
}))

describe('the reader of usual values', () => {
  it('reads what the general decoder reads', () => {
    const property = fc.property(usual.value, fc.nat(3), fc.nat(3), (value, before, after) => {
      const data = packr.pack(value)
      const expected = packr.unpack(data)
      const found = read(data, before, after)
      if (found === unusual) assert.match(JSON.stringify(value), /__proto__/)
      else assert.deepStrictEqual(found, expected)
    })
    fc.assert(property, { seed, numRuns: 2_000 })
  })

  it('leaves other values, deep nesting and a map with the key __proto__ to the general decoder', () => {
    let deep: unknown = 1
    for (let depth = 0; depth < 100; depth++) deep = [deep]
    const values = [
      new Date(),
      2n ** 60n,
      undefined,
      Buffer.from('x'),
      new Set([1]),
      deep,
      JSON.parse('{"__proto__":1}'),
    ]
    for (const value of values) assert.equal(read(packr.pack({ value })), unusual)
    assert.equal(read(Buffer.of(0x81, 0x01, 0x01)), unusual, 'a number as key')
  })

  it('of any bytes reads nothing else than the general decoder, and nothing beyond its range', () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.tuple(usual.value, fc.nat(), fc.nat(255), fc.nat(10)).map(([value, place, byte, cut]) => {
        const data = Buffer.from(packr.pack(value))
        data[place % data.length] = byte
        return data.subarray(0, Math.max(0, data.length - (cut > 5 ? cut : 0)))
      }),
    )
    let compared = 0
    const property = fc.property(bytes, fc.nat(40), (data, after) => {
      const found = read(data, 0, after)
      if (found === unusual) return
      compared++
      assert.equal(checkDecodeLimits(data), undefined)
      assert.deepStrictEqual(found, packr.unpack(data))
    })
    fc.assert(property, { seed, numRuns: 5_000 })
    assert.ok(compared > 500, `${compared} were read`)
  })
})
