// Nearly valid input: valid values and bytes with a few changes.

import fc from './properties.ts'

/** Values that often break readers. */
export const oddities: unknown[] = [
  null,
  undefined,
  '',
  ' ',
  '0',
  'true',
  '__proto__',
  'constructor',
  '../..',
  'a.b',
  'a>*',
  'x'.repeat(5_000),
  '\u0000',
  '\ud800',
  0,
  -1,
  -0,
  1.5,
  70_000,
  Number.MAX_SAFE_INTEGER,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  10n,
  true,
  false,
  [],
  {},
  [[]],
  [null],
  JSON.parse('{"__proto__":{"polluted":true}}'),
  { toString: null, valueOf: null },
  new Date(Number.NaN),
  new Map([['a', 1]]),
  Symbol('s'),
  () => {},
]

const isContainer = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' &&
  value !== null &&
  (Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype)

/** Every container in the value, itself first; may be cyclic. */
function containers(value: unknown, found = new Set<Record<string, unknown>>()): Record<string, unknown>[] {
  if (isContainer(value) && !found.has(value)) {
    found.add(value)
    for (const each of Object.values(value)) containers(each, found)
  }
  return [...found]
}

/** Copies of these values with up to four parts replaced, removed, duplicated or added. */
export function nearly(values: readonly object[]): fc.Arbitrary<object> {
  const odd = fc.oneof(fc.constantFrom(...oddities), fc.anything({ withBigInt: true, withNullPrototype: true }))
  const change = fc.record({
    where: fc.nat(),
    what: fc.nat(),
    how: fc.constantFrom('set', 'remove', 'add', 'copy'),
    value: odd,
  })
  return fc.tuple(fc.constantFrom(...values), fc.array(change, { maxLength: 4 })).map(([value, changes]) => {
    const copy = structuredClone(value) as Record<string, unknown>
    for (const { where, what, how, value } of changes) {
      const all = containers(copy)
      const container = all[where % all.length]!
      const keys = Object.keys(container)
      const key = keys[what % Math.max(keys.length, 1)]
      if (how === 'add' || key === undefined)
        container[Array.isArray(container) ? container.length : `extra${what}`] = value
      else if (how === 'remove') delete container[key]
      else container[key] = how === 'copy' ? container[keys[where % keys.length]!] : value
    }
    return copy
  })
}

/** Copies of these bytes with some of them changed, removed, duplicated, or cut off. */
export function nearlyBytes(values: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const change = fc.record({
    at: fc.nat(),
    count: fc.nat(8),
    how: fc.constantFrom('set', 'remove', 'double', 'cut'),
    byte: fc.nat(255),
  })
  return fc
    .tuple(fc.constantFrom(...values), fc.array(change, { minLength: 1, maxLength: 4 }))
    .map(([value, changes]) => {
      let bytes = [...value]
      for (const { at, count, how, byte } of changes) {
        if (bytes.length === 0) break
        const from = at % bytes.length
        if (how === 'set') bytes[from] = byte
        else if (how === 'remove') bytes.splice(from, count)
        else if (how === 'double') bytes.splice(from, 0, ...bytes.slice(from, from + count))
        else bytes = bytes.slice(0, from)
      }
      return Uint8Array.from(bytes)
    })
}

/** Texts with a special meaning in YAML. */
const snippets = [
  ...[
    '{',
    '}',
    '[',
    ']',
    ':',
    '- ',
    '? ',
    '|',
    '>',
    '#',
    '&a ',
    '*a',
    '<<: *a',
    '!!binary ',
    '!x ',
    '---',
    '...',
    '%YAML 1.1',
  ],
  ...[
    '\t',
    '\u0000',
    '\ud800',
    '\ufeff',
    '\r',
    '"',
    "'",
    '\\',
    ',',
    'null',
    '~',
    '.nan',
    '0x1F',
    '1e999',
    '=',
    'yes',
    '{}',
    '[]',
  ],
  ...[
    '__proto__: { polluted: true }',
    'constructor: null',
    '&a [*a, *a]',
    '"\\u0000"',
    '12345678901234567890',
    '../..',
  ],
]

/** Copies of these texts with up to five lines changed, moved, duplicated, indented differently, or cut off. */
export function nearlyText(texts: readonly string[]): fc.Arbitrary<string> {
  const change = fc.record({
    line: fc.nat(),
    at: fc.nat(),
    how: fc.constantFrom('insert', 'replace', 'remove', 'double', 'move', 'indent', 'outdent', 'cut'),
    snippet: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...snippets) }, { weight: 1, arbitrary: fc.string() }),
  })
  return fc
    .tuple(fc.constantFrom(...texts), fc.array(change, { minLength: 1, maxLength: 5 }))
    .map(([text, changes]) => {
      let lines = text.split('\n')
      for (const { line, at, how, snippet } of changes) {
        const number = line % lines.length
        const whole = lines[number] ?? ''
        const place = at % (whole.length + 1)
        if (how === 'insert') lines[number] = whole.slice(0, place) + snippet + whole.slice(place)
        else if (how === 'replace') lines[number] = `${whole.replace(/:.*$/, '')}: ${snippet}`
        else if (how === 'remove') lines.splice(number, 1)
        else if (how === 'double') lines.splice(number, 0, whole)
        else if (how === 'move') lines.splice(at % lines.length, 0, ...lines.splice(number, 1))
        else if (how === 'indent') lines[number] = ' '.repeat(1 + (at % 4)) + whole
        else if (how === 'outdent') lines[number] = whole.slice(Math.min(at % 4, whole.search(/\S|$/)))
        else lines = [...lines.slice(0, number), whole.slice(0, place)]
        if (lines.length === 0) lines = ['']
      }
      return lines.join('\n')
    })
}
