// The body of a frame is the same as a general encoder of MessagePack writes, and hostile ones are refused.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Packr } from 'msgpackr'
import { decodeBody, encodeBody } from '../../lib/replication/wire/frame-body.ts'

const packr = new Packr({ useRecords: false, copyBuffers: true })
const part = (length: number) => Buffer.alloc(length, length & 0xff)
const lists = [
  [part(0)],
  Array.from({ length: 15 }, () => part(3)),
  Array.from({ length: 16 }, (_, index) => part(250 + index)),
  [part(255), part(256), part(65_535), part(65_536), part(70_000)],
  Array.from({ length: 4_096 }, () => part(1)),
]

describe('the body of a frame', () => {
  it('is what a general encoder writes, and is read again', () => {
    for (const parts of lists) {
      const body = encodeBody(parts)
      assert.deepEqual(Buffer.from(body), Buffer.from(packr.pack(parts)))
      const decoded = decodeBody(body, 4_096)
      assert.ok(typeof decoded !== 'string' && decoded.length === 2 * parts.length)
      assert.deepEqual(
        parts.map((_, index) => Buffer.from(body.subarray(decoded[2 * index], decoded[2 * index + 1]))),
        parts,
      )
    }
  })

  it('is refused when it is cut, has more bytes, or is something else', () => {
    const body = encodeBody([part(300), part(2)])
    for (let end = 0; end < body.byteLength; end++)
      assert.equal(typeof decodeBody(body.subarray(0, end), 4_096), 'string', `${end} bytes`)
    assert.match(decodeBody(Buffer.concat([body, Buffer.of(0)]), 4_096) as string, /more bytes/)
    for (const value of [{}, 'text', 5, null, ['text'], [[part(1)]], [5]])
      assert.equal(decodeBody(packr.pack(value), 4_096), 'not a list of byte strings')
    assert.match(decodeBody(Buffer.of(0xdd, 0xff, 0xff, 0xff, 0xff), 4_096) as string, /more than 4096/)
    assert.equal(decodeBody(Buffer.of(0x91, 0xc6, 0xff, 0xff, 0xff, 0xff), 4_096), 'ends too early')
  })
})
