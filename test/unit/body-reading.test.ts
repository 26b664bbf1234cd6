// Request bodies: coercion, unknown keys, and HarperDB's error texts in their order.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type TSchema, Type } from 'typebox'
import { ClusterError } from '../../lib/errors.ts'
import { compileBody, readBody, withRule } from '../../lib/operations/body.ts'
import { operations } from '../../lib/operations/index.ts'
import { isDateTime, toUtc } from '../../lib/operations/time.ts'
import { formatUptime } from '../../lib/util/format-uptime.ts'

const issuesOf = (schema: TSchema, body: unknown): string[] => {
  try {
    readBody(schema, body)
  } catch (error) {
    assert.ok(error instanceof ClusterError && error.code === 'invalid_request' && error.statusCode === 400)
    const messages = (error.issues ?? []).map(({ message }) => message)
    assert.equal(error.message, messages.join('. '))
    return messages
  }
  return []
}

const issueOf = (schema: TSchema, value: unknown): string | undefined =>
  issuesOf(Type.Object({ x: schema }), { x: value })[0]
const read = (schema: TSchema, value: unknown): unknown =>
  (readBody(Type.Object({ x: schema }), { x: value }) as { x: unknown }).x

describe('readBody', () => {
  it('coerces strings to numbers and booleans', () => {
    assert.equal(read(Type.Integer(), ' 12345 '), 12345)
    assert.equal(read(Type.Number(), '1.5e1'), 15)
    assert.equal(read(Type.Boolean(), ' TRUE'), true)
    assert.equal(read(Type.Boolean(), 'false'), false)
    assert.equal(read(Type.String(), ' a '), ' a ')
  })

  it('reports an invalid number', () => {
    const port = Type.Integer({ minimum: 1, maximum: 65535 })
    for (const value of ['', ' ', 'x', '0x10', null, true, [], {}, Number.NaN, '1 2'])
      assert.equal(issueOf(port, value), "'x' must be a number", String(value))
    for (const value of [-1, 0, '0', '-1']) assert.equal(issueOf(port, value), "'x' must be greater than or equal to 1")
    for (const value of [65536, '70000']) assert.equal(issueOf(port, value), "'x' must be less than or equal to 65535")
    for (const value of [1.5, '1.5', 0.5]) assert.equal(issueOf(port, value), "'x' must be an integer")
    for (const value of [2 ** 53, '12345678901234567890', Number.POSITIVE_INFINITY, '1e400'])
      assert.equal(issueOf(port, value), "'x' must be a safe number")
  })

  it('reports other invalid values', () => {
    for (const value of [null, 1, 'yes', '']) assert.equal(issueOf(Type.Boolean(), value), "'x' must be a boolean")
    for (const value of [null, 1, {}, []]) assert.equal(issueOf(Type.String(), value), "'x' must be a string")
    assert.equal(issueOf(Type.String({ minLength: 1 }), ''), "'x' is not allowed to be empty")
    for (const value of [null, '', 'HUB', 1])
      assert.equal(issueOf(Type.Enum(['hub', 'leaf']), value), "'x' must be one of [hub, leaf]")
    assert.equal(issueOf(Type.Array(Type.String()), {}), "'x' must be an array")
    assert.equal(issueOf(Type.Array(Type.String()), null), "'x' must be an array")
    assert.equal(issueOf(Type.Array(Type.String(), { minItems: 1 }), []), "'x' must contain at least 1 items")
    for (const value of [null, 1, 'x', []]) assert.equal(issueOf(Type.Object({}), value), "'x' must be of type object")
    assert.equal(issueOf(Type.String(), undefined), "'x' is required")
  })

  it('treats null as missing if the schema says so', () => {
    assert.equal(issueOf(Type.String({ nullIsMissing: true }), null), "'x' is required")
    assert.deepEqual(
      readBody(Type.Object({ x: Type.Optional(Type.Object({}, { nullIsMissing: true })) }), { x: null }),
      {},
    )
  })

  it('reports every issue, in the order of the schema, with indexes', () => {
    const schema = Type.Object({
      server: Type.Enum(['hub', 'leaf']),
      list: Type.Array(Type.Object({ host: Type.String(), port: Type.Integer() })),
    })
    const list = [...Array.from({ length: 12 }, () => ({})), 5]
    assert.deepEqual(issuesOf(schema, { list }), [
      "'server' is required",
      ...Array.from({ length: 12 }, (_, index) => [
        `'list[${index}].host' is required`,
        `'list[${index}].port' is required`,
      ]).flat(),
      "'list[12]' must be of type object",
    ])
    for (const body of [undefined, null, 5, 'x', [], {}])
      assert.deepEqual(issuesOf(schema, body), ["'server' is required", "'list' is required"])
  })

  it('drops unknown keys and ignores prototypes', () => {
    const schema = Type.Object({ a: Type.Object({ b: Type.Optional(Type.Integer()) }) })
    const body = JSON.parse(
      '{ "__proto__": { "x": 1 }, "a": { "__proto__": { "b": 5 }, "constructor": 1, "c": 2 }, "d": 3 }',
    )
    const value = readBody(schema, body) as object
    assert.deepEqual(Object.entries(value), [['a', {}]])
    assert.equal(Object.getPrototypeOf(value), Object.prototype)
    assert.equal(({} as { x?: number }).x, undefined)
    assert.deepEqual(issuesOf(schema, Object.create({ a: {} })), ["'a' is required"])
  })

  it('runs a rule only if its schema has no issues', () => {
    const schema = withRule(Type.Object({ a: Type.Integer() }), ({ a }, path) => ({ path, message: `rule ${a}` }))
    assert.deepEqual(issuesOf(Type.Object({ x: schema }), { x: { a: '1' } }), ['rule 1'])
    assert.deepEqual(issuesOf(Type.Object({ x: schema }), { x: {} }), ["'x.a' is required"])
  })

  it('reads bodies of schemas compiled in advance', () => {
    assert.deepEqual(readBody(compileBody(Type.Object({ a: Type.Integer() })), { a: '1' }), { a: 1 })
    assert.equal(Object.keys(operations).length, 14)
  })
})

describe('times', () => {
  it('must be ISO 8601 dates with times', () => {
    const good = [
      '2022-09-02T20:06:35.993Z',
      '2022-09-02T20:06:35Z',
      '2022-09-02T20:06Z',
      '2022-09-02T20:06:35+02:00',
      '2022-09-02T20:06:35-0230',
      '2022-09-02T20:06:35',
      '2024-02-29T00:00:00Z',
      '2022-09-02T20:06:35,5Z',
    ]
    const bad = [
      '',
      '2022-09-02',
      '2022-02-30T00:00:00Z',
      '2023-02-29T00:00:00Z',
      '2022-13-01T00:00:00Z',
      '2022-09-02T25:00:00Z',
      '2022-09-02T20:60:00Z',
      '2022-09-02 20:06:35',
      'yesterday',
      '1662149195993',
      '2022-09-02T20',
      '2022-09-02T20:06:35+99:00',
      ' 2022-09-02T20:06:35Z',
    ]
    assert.deepEqual(
      good.filter((text) => !isDateTime(text)),
      [],
    )
    assert.deepEqual(bad.filter(isDateTime), [])
  })

  it('are converted to UTC; a future time becomes now', () => {
    const now = Date.parse('2023-01-01T00:00:00Z')
    assert.equal(toUtc('2022-09-02T20:06:35+02:00', now), '2022-09-02T18:06:35.000Z')
    assert.equal(toUtc('2022-09-02T20:06:35.5-02:30', now), '2022-09-02T22:36:35.500Z')
    assert.equal(toUtc('2022-09-02T20:06', now), '2022-09-02T20:06:00.000Z')
    assert.equal(toUtc('2022-09-02T20:06:35.29Z', now), '2022-09-02T20:06:35.290Z')
    assert.equal(toUtc('2999-01-01T00:00:00Z', now), '2023-01-01T00:00:00.000Z')
  })

  it('as uptimes omit leading zero parts', () => {
    assert.equal(formatUptime(((30 * 24 + 1) * 60 + 18) * 60 + 8), '30d 1h 18m 8s')
    assert.equal(formatUptime(3600), '1h 0m 0s')
    assert.equal(formatUptime(59.9), '59s')
    assert.equal(formatUptime(0), '0s')
  })
})
