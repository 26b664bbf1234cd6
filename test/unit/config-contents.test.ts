// Unusual contents of the configuration file: what is outside of the section is kept byte for byte through every edit, or the file is
// refused with line and column. Faults show nothing of the host's part.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { decodeBytes } from '../../lib/manifest/config-bytes.ts'
import { editConfig } from '../../lib/manifest/config-edit.ts'
import { ConfigText, problemText } from '../../lib/manifest/config-text.ts'
import { diff } from '../../lib/manifest/diff.ts'
import {
  addRoutes,
  type Manifest,
  removeNode,
  removeRoutes,
  setSubscriptions,
  share,
} from '../../lib/manifest/manifest.ts'

const dog = { database: 'dev', table: 'dog', publish: true, subscribe: false }
const SECRET = 'hunter2'

const edits: ((manifest: Manifest) => Manifest)[] = [
  (manifest) => addRoutes(manifest, 'hub', [{ host: 'h1', port: 1 }]).manifest,
  (manifest) => addRoutes(manifest, 'leaf', [{ host: 'l1', port: 2 }]).manifest,
  (manifest) => setSubscriptions(manifest, 'other', [dog]),
  (manifest) => setSubscriptions(manifest, 'other', [{ ...dog, subscribe: true }]),
  (manifest) => removeRoutes(manifest, [{ host: 'h1', port: 1 }]).manifest,
  (manifest) => removeNode(manifest, 'other'),
]

function edited(config: ConfigText, change: (manifest: Manifest) => Manifest): ConfigText {
  const previous = config.config!.manifest
  return editConfig(config, diff(previous, share(previous, change(previous))))
}

const section = 'clustering:\n  enabled: false\n  nodeName: me\n  nodes: null\n'
const crlf = (text: string) => text.replaceAll('\n', '\r\n')

type Kept = { name: string; before?: string; section?: string; after?: string }

/** `before` and `after` are the host's part. */
const kept: Kept[] = [
  { name: 'a byte order mark', before: '\uFEFFa: 1\n' },
  { name: 'carriage returns', before: crlf('a: 1\n# b\n'), section: crlf(section), after: crlf('c: 2\n') },
  { name: 'one carriage return before', before: 'one: 1\r\ntwo: 2\nthree: 3\n', after: 'c: 2\n' },
  { name: 'one carriage return behind', before: 'a: 1\n', after: 'c: 2\r\nd: 3\n' },
  { name: 'one line feed among carriage returns', before: 'a: 1\nb: 2\r\n', section: crlf(section), after: 'c: 2\r\n' },
  { name: 'a section with other line ends than the host', before: crlf('a: 1\nb: 2\nc: 3\n'), after: crlf('d: 4\n') },
  { name: 'no line end at the end', before: 'a: 1\n', section: section.trimEnd() },
  { name: 'no line end at the end, host last', before: 'a: 1\n', after: 'c: 2' },
  { name: 'no line end at the end, host last, carriage returns', section: crlf(section), after: 'c: 2' },
  { name: 'blank lines and blanks at the ends of lines', before: '\n\n  \na: 1   \n', after: '\n\n\nc: 2  \n\n\n' },
  { name: 'tabs between tokens and in comments', before: 'a:\t1\t# tab\there\n', after: 'c:\t[1,\t2]\n' },
  { name: 'a directive and document marks', before: '%YAML 1.2\n---\na: 1\n', after: 'c: 2\n...\n' },
  {
    name: 'a tag directive',
    before: '%TAG !e! tag:example.com,2000:\n--- # first\na: !e!x 1\n',
    after: '...\n# end\n',
  },
  { name: 'YAML 1.1', before: '%YAML 1.1\n---\na: yes\nb: 017\nc: 190:20:30\n' },
  { name: 'an anchor and its aliases in the host', before: 'a: &x { p: 1 }\nb: *x\n', after: 'c: [*x, *x]\n' },
  {
    name: 'aliases into the host',
    before: 'routes: &r\n  - { host: a, port: 1 }   # theirs\nx:   017\n',
    section: 'clustering:\n  enabled: false\n  hubServer: { cluster: { network: { routes: *r } } }\n',
    after: 'y:   "q"   # end\n',
  },
  {
    name: 'aliases of whole maps into the host',
    before: 'hub: &h\n    cluster:\n        network: { port: 1 }\nx:   017\n',
    section: 'clustering:\n  enabled: false\n  hubServer: *h\n',
    after: '# the rest\ny:   "q"\n',
  },
  {
    name: 'anchors in the section that the host refers to',
    section: 'clustering:\n  enabled: false\n  tls: &t { insecure: true }\n',
    after: 'c:   *t\n',
  },
  { name: 'merge keys in the host', before: 'a: &x { p: 1 }\nb: { <<: *x, q: 2 }\nm:\n  <<: [*x]\n' },
  { name: 'a merge key of a wrong type in the host', before: 'a: { <<: 5 }\n' },
  {
    name: 'tags',
    before: 'a: !!binary aGk=\nb: !!str 1\nc: !secret password\nd: !include x.yaml\n',
    after: 'e: !!set {x}\n',
  },
  {
    name: 'block scalars',
    before: 'a: |+\n  text # no comment\n\n  clustering: no\n\nb: >-\n  folded\n   more\n',
    after: 'c: |2\n    x\n',
  },
  { name: 'quotes', before: 'a: "x\\n\\ud800\\0\\x07"\nb: \'it\'\'s\'\nc: "multi\n  line"\n' },
  { name: 'complex keys', before: '? [a, b]\n: 1\n? {c: d}\n: 2\n5: five\ntrue: yes\nnull: 0\n' },
  { name: 'numbers', before: 'a: 12345678901234567890\nb: 1e3\nc: 0x1F\nd: .inf\ne: .nan\nf: 1_000\ng: +1\nh: 007\n' },
  { name: 'comments everywhere', before: '# 1\na: # 2\n  # 3\n  b: 1 # 4\n# 5\n', after: '# 6\nc: 2 # 7\n# 8\n' },
  {
    name: 'comments everywhere in the section',
    before: '# 1\n',
    section: 'clustering: # 2\n  # 3\n  enabled: false # 4\n  # 5\n  nodes: # 6\n    # 7\n    - name: n # 8\n  # 9\n',
    after: '# 10\nc: 2\n',
  },
  { name: 'flow style in the host', before: 'a: {b: [1,{c: d}], e: "f"}\n', after: 'g: [ 1,\n 2 ]\n' },
  {
    name: 'flow style in the section',
    before: 'a:   1\n',
    section: 'clustering: {enabled: false,  nodeName: me}',
    after: ' # x\nb: 2\n',
  },
  { name: 'a list without indentation', before: 'a:\n- 1\n- 2\n', after: 'c:\n- x: 1\n  y: 2\n' },
  { name: 'a very long line', before: `a: ${'x'.repeat(300_000)}\n`, after: `c: "${'y '.repeat(100_000)}"\n` },
  {
    name: 'next line, line and paragraph separator',
    before: 'a: "x\u0085y"\n# c\u2028d\u2029e\n',
    after: 'f: g\u2028h\n',
  },
  {
    name: 'a line separator in a comment of the section',
    section: 'clustering:\n  enabled: false\n  nodes:\n    # a\u2028b\n    - name: n # c\u0085\n',
  },
  { name: 'control characters that are no fault', before: 'a: "\u0007"\n# \f page\n', after: '# \u001B[1m\n' },
  { name: 'characters beyond the first plane', before: 'a: 𝒳🐕\n# 🐈\n', after: 'ö: ß\n' },
  { name: 'a byte order mark in the middle', before: 'a: "x\uFEFFy"\n' },
  { name: 'a replacement character', before: 'a: "\uFFFD"\n' },
  { name: 'a quoted key', section: '"clustering":\n  "enabled": false\n' },
  { name: 'an explicit key', before: 'a: 1\n', section: '? clustering\n: enabled: false\n', after: 'c:   2\n' },
  {
    name: 'an anchor on the section',
    before: 'a: 1\n',
    section: 'clustering: &own\n  enabled: false\n',
    after: 'c:   2\n',
  },
  {
    name: 'JSON',
    before: '{\n\t"a": 1e3,  "\\ud800": "x",\n\t"clustering": ',
    section: '{ "enabled": false, "nodeName": "me" }',
    after: ',\n\t"z": [1,\t2]\n}\n',
  },
  { name: 'JSON without any blank', before: '{"a":1.0,"clustering":', section: '{"enabled":false}', after: ',"z":{}}' },
  {
    name: 'JSON over several lines',
    before: '{\n    "a": 1e3,\n    "clustering": ',
    section: '{\n        "enabled": false,\n        "nodes": null\n    }',
    after: ',\n    "z": [1,\t2]\n}\n',
  },
  {
    name: 'flow style of the whole file',
    before: "{ a: 'x',   clustering: ",
    section: '{enabled: false}',
    after: ',   z: "y" } # end\n',
  },
]

describe('contents outside of the section are kept byte for byte', () => {
  for (const { name, before = '', section: own = section, after = '' } of kept)
    it(name, () => {
      const contents = Buffer.from(before + own + after)
      let config = new ConfigText(decodeBytes(contents))
      assert.deepEqual(config.problems, [])
      assert.deepEqual(Buffer.from(config.onDisk), contents)
      for (const change of edits) {
        const expected = change(config.config!.manifest)
        config = edited(config, change)
        const text = config.onDisk
        assert.ok(text.startsWith(before), JSON.stringify(text.slice(0, 2_000)))
        assert.ok(text.endsWith(after), JSON.stringify(text.slice(-2_000)))
        // As read from disk.
        const again = new ConfigText(decodeBytes(Buffer.from(text)))
        assert.deepEqual(again.problems, [])
        assert.deepEqual(again.config?.manifest, expected)
        if (name.startsWith('JSON')) JSON.parse(text)
      }
    })

  it('keeps the line ends of unchanged lines in a list of mixed ones', () => {
    const items = ['a', 'b', 'c', 'd'].map(
      (host, index) => `    - { host: ${host}, port: 1 }${index % 2 ? '\r\n' : '\n'}`,
    )
    const text = `clustering:\n  enabled: false\n  leafServer:\r\n   network:\n    routes:\r\n${items.join('')}`
    const lines = (value: string) => value.split(/(?<=\n)/)
    let config = new ConfigText(text)
    for (const change of [
      (manifest: Manifest) => addRoutes(manifest, 'leaf', [{ host: 'e', port: 1 }]).manifest,
      (manifest: Manifest) => removeRoutes(manifest, [{ host: 'b', port: 1 }]).manifest,
    ])
      config = edited(config, change)
    assert.deepEqual(
      lines(config.onDisk).filter((line) => !/host: e$|^ +port: 1$/.test(line.trimEnd())),
      lines(text).filter((line) => !line.includes('host: b')),
    )
  })
})

type Refused = { name: string; contents: string | Buffer; line: number; column?: number; message: RegExp }
const latin1 = (text: string) => Buffer.from(text, 'latin1')
const utf16 = (text: string) => Buffer.from(text, 'utf16le')

const refused: Refused[] = [
  {
    name: 'a byte that is not UTF-8',
    contents: latin1(`password: ${SECRET}\npath: /srv/caf\xE9\n${section}`),
    line: 2,
    column: 15,
    message: /0xE9 is not UTF-8/,
  },
  {
    name: 'a truncated character at the end',
    contents: Buffer.concat([Buffer.from(`${section}# `), Buffer.from('ä').subarray(0, 1)]),
    line: 5,
    column: 3,
    message: /0xC3 is not UTF-8/,
  },
  {
    name: 'half a replacement character at the end',
    contents: Buffer.concat([Buffer.from(section), Buffer.from('\uFFFD').subarray(0, 2)]),
    line: 5,
    column: 2,
    message: /is not UTF-8/,
  },
  {
    name: 'an overlong sequence and a surrogate in UTF-8',
    contents: Buffer.concat([Buffer.from(`${section}# \uFFFD`), Buffer.from([0xc0, 0x80, 0xed, 0xa0, 0x80])]),
    line: 5,
    column: 4,
    message: /0xC0 is not UTF-8/,
  },
  { name: 'UTF-16', contents: utf16(`\uFEFF${section}`), line: 1, column: 1, message: /is UTF-16/ },
  {
    name: 'UTF-16, big endian',
    contents: utf16(`\uFEFF${section}`).swap16(),
    line: 1,
    column: 1,
    message: /is UTF-16/,
  },
  { name: 'UTF-16 without a mark', contents: utf16(section), line: 1, column: 2, message: /null character/ },
  {
    name: 'null characters after a crash',
    contents: `${section}\0\0\0`,
    line: 5,
    column: 1,
    message: /null character/,
  },
  { name: 'only null characters', contents: '\0'.repeat(100), line: 1, column: 1, message: /null character/ },
  {
    name: 'carriage returns alone',
    contents: section.replaceAll('\n', '\r'),
    line: 1,
    column: 12,
    message: /carriage return/,
  },
  {
    name: 'line ends that were converted twice',
    contents: `a: 1\n${section}b: 1\r\r\n`,
    line: 6,
    column: 5,
    message: /carriage return/,
  },
  { name: 'an empty file', contents: '', line: 1, column: 1, message: /'clustering' is missing/ },
  { name: 'only a byte order mark', contents: '\uFEFF', line: 1, column: 1, message: /'clustering' is missing/ },
  { name: 'only comments', contents: '# a\n# b\n', line: 1, column: 1, message: /'clustering' is missing/ },
  { name: 'a text instead of a map', contents: SECRET, line: 1, column: 1, message: /must be a map$/ },
  {
    name: 'several documents',
    contents: `a: ${SECRET}\n---\n${section}`,
    line: 2,
    column: 1,
    message: /single YAML document/,
  },
  {
    name: 'duplicate keys of the host',
    contents: `a: 1\na: ${SECRET}\n${section}`,
    line: 2,
    column: 1,
    message: /unique/,
  },
  { name: 'two sections', contents: section + section, line: 5, column: 1, message: /unique/ },
  {
    name: 'tabs as indentation',
    contents: `a:\n\tpassword: ${SECRET}\n${section}`,
    line: 2,
    column: 1,
    message: /tabs/,
  },
  { name: 'an unknown alias', contents: `a: *${SECRET}\n${section}`, line: 1, column: 4, message: /no anchor/ },
  {
    name: 'an unexpected token',
    contents: `a: "x" ${SECRET}\n${section}`,
    line: 1,
    column: 8,
    message: /not expected/,
  },
  { name: 'an open quote', contents: `password: "${SECRET}\n${section}`, line: 6, column: 1, message: /missing|quote/ },
  {
    name: 'an open bracket',
    contents: `a: [${SECRET}\n${section}`,
    line: 2,
    column: 1,
    message: /indentation|bracket/,
  },
  { name: 'a bad escape sequence', contents: `a: "\\q${SECRET}"\n${section}`, line: 1, column: 5, message: /escape/ },
  { name: 'a reserved character', contents: `a: @${SECRET}\n${section}`, line: 1, column: 4, message: /reserved/ },
  {
    name: 'a colon in a value',
    contents: `a: password: ${SECRET}\n${section}`,
    line: 1,
    column: 4,
    message: /line of its own/,
  },
  {
    name: 'a bad indentation',
    contents: `a:\n   b: 1\n  ${SECRET}: 2\n${section}`,
    line: 3,
    column: 1,
    message: /indentation/,
  },
  { name: 'a line without a colon', contents: `${SECRET}\n${section}`, line: 1, column: 1, message: /single line/ },
  // The column depends on the size of the stack.
  { name: 'a host without end', contents: `a: ${'['.repeat(100_000)}\n`, line: 1, message: /too deeply/ },
  {
    name: 'aliases that expand to too much',
    contents: `a0: &a0 [${'x,'.repeat(9)}x]\n${Array.from({ length: 9 }, (_, index) => `a${index + 1}: &a${index + 1} [${`*a${index},`.repeat(9)}*a${index}]\n`).join('')}${section}`,
    line: 1,
    column: 1,
    message: /expand to too much/,
  },
  {
    name: 'a merge key in the section',
    contents: `defaults: &d\n  enabled: true\n  user: ${SECRET}\nclustering:\n  <<: *d\n  nodeName: a\n`,
    line: 5,
    column: 3,
    message: /merge keys/,
  },
  {
    name: 'a merge key behind an alias',
    contents: `d: &d { <<: { port: 1 } }\nclustering:\n  enabled: true\n  hubServer: *d\n`,
    line: 1,
    column: 9,
    message: /merge keys/,
  },
  {
    name: 'a merge key in a subscription',
    contents: `d: &d { publish: true, subscribe: true }\nclustering:\n  enabled: true\n  nodes:\n    - name: n\n      subscriptions:\n        - { <<: *d, database: dev, table: dog }\n`,
    line: 7,
    column: 13,
    message: /merge keys/,
  },
  {
    name: 'a merge key of YAML 1.1',
    contents: '%YAML 1.1\n---\nd: &d { user: u }\nclustering:\n  <<: *d\n  enabled: true\n',
    line: 5,
    column: 3,
    message: /merge keys/,
  },
  {
    name: 'a secret of the host as a value of the section',
    contents: `password: &p ${SECRET}\nclustering:\n  enabled: true\n  logLevel: *p\n`,
    line: 4,
    column: 13,
    message: /must be one of error/,
  },
  {
    name: 'a map with a secret of the host as a value of the section',
    contents: `host: &h\n  port: ${SECRET}\nclustering:\n  enabled: true\n  hubServer: { network: *h }\n`,
    line: 5,
    column: 25,
    message: /must be a port/,
  },
]

describe('contents that are refused', () => {
  for (const { name, contents, line, column, message } of refused)
    it(name, () => {
      const { config, problems, warnings } = new ConfigText(decodeBytes(Buffer.from(contents)))
      assert.equal(config, undefined)
      const [first] = problems
      assert.match(first?.message ?? '', message)
      assert.deepEqual([first?.line, column && first?.column], [line, column])
      const shown = [...problems, ...warnings].map(problemText).join('\n')
      assert.ok(!shown.includes(SECRET) && !shown.includes(SECRET.slice(1)), shown)
    })

  it('never equal the contents that were read before', () => {
    const valid = Buffer.from(`# \uFFFD\n${section}`)
    const damaged = Buffer.concat([Buffer.from('# '), Buffer.from([0xff]), Buffer.from(`\n${section}`)])
    assert.notEqual(decodeBytes(damaged), decodeBytes(valid))
  })

  it('show a value of the section, but not one of unbounded length', () => {
    const text = (value: string) => `clustering:\n  enabled: false\n  logLevel: ${value}\n`
    assert.match(new ConfigText(text('loud')).problems[0]!.message, /, not "loud"$/)
    assert.match(new ConfigText(text('x'.repeat(1_000))).problems[0]!.message, /, not a text of 1002 characters$/)
  })
})
