// Headers of received messages, read from the client's private fields or through its public API.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { headers, type Msg } from 'nats'
import { HeaderReader } from '../../lib/mesh/nats/header-reader.ts'
import { silentLogger } from '../../lib/observe/logger.ts'

const HEADER_BLOCK = 'NATS/1.0\r\nNats-Msg-Id: a:1\r\norigin: node2\r\nNats-Expected-Last-Sequence: 4\r\n\r\n'
const EXPECTED_HEADERS = { 'Nats-Msg-Id': 'a:1', origin: 'node2' }

/** A message as the client creates it: header bytes followed by data. The public headers say that they were used. */
function rawMessage(block = HEADER_BLOCK, hdr: unknown = block === '' ? -1 : block.length): Msg {
  const bytes = Buffer.from(`${block}data`)
  const headers = () => assert.fail('public API used')
  return {
    _rdata: bytes,
    _msg: { hdr },
    data: bytes.subarray(block.length),
    get headers() {
      return headers()
    },
  } as unknown as Msg
}

function publicMessage(entries: Record<string, string>, fields: object = {}): Msg {
  const values = headers()
  for (const [key, value] of Object.entries(entries)) values.set(key, value)
  return { data: Buffer.from('data'), headers: values, ...fields } as unknown as Msg
}

function start() {
  const logged: string[] = []
  const logger = { ...silentLogger, debug: (_: object, text: string) => void logged.push(text) }
  return { reader: new HeaderReader(logger), logged }
}

describe('header reader', () => {
  it('reads the private fields when they agree with the data', () => {
    const { reader, logged } = start()
    assert.deepEqual(reader.read(rawMessage()), EXPECTED_HEADERS)
    assert.deepEqual(reader.read(rawMessage('')), {})
    assert.deepEqual(logged, [])
  })

  const invalidFields: [name: string, fields: object][] = [
    ['missing', {}],
    ['without a length', { _rdata: Buffer.from(`${HEADER_BLOCK}data`), _msg: {} }],
    ['of other types', { _rdata: HEADER_BLOCK, _msg: { hdr: '12' } }],
    ['not the buffer of the data', { _rdata: Buffer.from(`${HEADER_BLOCK}data`), _msg: { hdr: HEADER_BLOCK.length } }],
  ]
  for (const [name, fields] of invalidFields)
    it(`falls back to the public API when the private fields are ${name}, and logs it once`, () => {
      const { reader, logged } = start()
      const message = publicMessage({ ...EXPECTED_HEADERS, 'Nats-Expected-Last-Sequence': '4' }, fields)
      assert.deepEqual(reader.read(message), EXPECTED_HEADERS)
      assert.deepEqual(reader.read(message), EXPECTED_HEADERS)
      assert.deepEqual(logged, ['private fields of the nats client not found, reading headers through its public API'])
    })

  it('falls back when the header length does not end where the data begins', () => {
    const { reader, logged } = start()
    const bytes = Buffer.from(`${HEADER_BLOCK}data`)
    const message = publicMessage(EXPECTED_HEADERS, { _rdata: bytes, _msg: { hdr: 3 }, data: bytes.subarray(10) })
    assert.deepEqual(reader.read(message), EXPECTED_HEADERS)
    assert.equal(logged.length, 1)
  })

  it('returns no headers for a block beyond 64 KiB, in both ways', () => {
    const long = 'e'.repeat(70_000)
    assert.deepEqual(start().reader.read(rawMessage(`NATS/1.0\r\nepoch: ${long}\r\n\r\n`)), {})
    assert.deepEqual(start().reader.read(publicMessage({ epoch: long })), {})
  })

  it('returns no headers when the client rejects them', () => {
    const message = {
      data: Buffer.from('data'),
      get headers() {
        throw new Error('invalid header')
      },
    } as unknown as Msg
    assert.deepEqual(start().reader.read(message), {})
  })
})
