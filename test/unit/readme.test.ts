// The examples in the READMEs are compiled, their tables match the code, and their links lead somewhere.

import assert from 'node:assert/strict'
import { existsSync, statSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join, posix } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parseDocument } from 'yaml'
import { bounds } from '../../lib/cluster/options.ts'
import { errors } from '../../lib/errors.ts'
import { ClusterManager, eventNames, healthCodes, metricDefinitions } from '../../lib/index.ts'
import { settingPaths } from '../../lib/manifest/settings.ts'
import { operations } from '../../lib/operations/index.ts'
import { MemoryHost, MemoryNetwork } from '../../lib/testing.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { prometheusName } from '../support/prometheus-name.ts'

const MAX_README_LINES = 250

const root = fileURLToPath(new URL('../..', import.meta.url))
const read = (path: string) => readFile(join(root, path), 'utf8')

/** Each README of the repository by its path, such as `lib/mesh/README.md`. */
async function readReadmes(): Promise<Map<string, string>> {
  const below = async (directory: string) =>
    (await readdir(join(root, directory), { recursive: true }))
      .filter((path) => /(^|[\\/])README\.md$/.test(path))
      .map((path) => posix.join(directory, path.replaceAll('\\', '/')))
  const paths = ['README.md', ...(await below('lib')), ...(await below('test'))].sort()
  return new Map(await Promise.all(paths.map(async (path) => [path, await read(path)] as const)))
}
const readmes = await readReadmes()

/** Line breaks, the commas before them and the columns of comments differ between a README and the formatter's output. */
const normalize = (text: string) =>
  text
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/, ([})])/g, ' $1')
    .trim()

/** The only match in all READMEs. */
function findOnce(pattern: RegExp, what: string): string {
  const found = [...readmes].flatMap(([path, text]) => [...text.matchAll(pattern)].map((match) => ({ path, match })))
  assert.equal(found.length, 1, `${what} is in ${found.map(({ path }) => path).join(', ') || 'no README'}`)
  return found[0]!.match[1]!
}

/** Name and text of each example that the compiler checks, as a README shows it. */
async function readExamples(): Promise<Map<string, string>> {
  const namesIn = async (directory: string, pattern: RegExp) =>
    (await readdir(join(root, directory))).filter((name) => pattern.test(name)).map((name) => `${directory}/${name}`)
  const paths = [
    ...(await namesIn('test/examples', /\.ts$/)),
    ...(await namesIn('test/types', /^readme-.*(?<!\.d)\.ts$/)),
  ]
  const examples = new Map<string, string>()
  for (const path of paths) {
    const [, text = ''] = /^\/\/[^\n]*\n(.*)/s.exec(await read(path)) ?? []
    // An export at the end of a type test only serves the compiler.
    const shown = path.startsWith('test/types/') ? text.replace(/^export .*/ms, '') : text
    examples.set(
      path,
      normalize(
        shown
          .replace('../../lib/index.ts', 'enmesh')
          .replace('../../lib/testing.ts', 'enmesh/testing')
          .replace('../../lib/status-page.ts', 'enmesh/status-page')
          .replace('../../lib/migrate.ts', 'enmesh/migrate')
          .replace(/'\.\.\/examples\//g, "'./"),
      ),
    )
  }
  return examples
}

test('each compiled example is in exactly one README, and each example in a README is compiled', async () => {
  const shown = [...readmes].flatMap(([path, text]) =>
    [...text.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => ({ path, text: normalize(match[1]!) })),
  )
  const examples = await readExamples()
  for (const [example, text] of examples) {
    const found = shown.filter((block) => block.text === text)
    assert.equal(found.length, 1, `${example} is in ${found.map(({ path }) => path).join(', ') || 'no README'}`)
  }
  const compiled = new Set(examples.values())
  for (const { path, text } of shown) assert.ok(compiled.has(text), `${path}: an example is not compiled: ${text}`)
})

const linesOf = (example: string) =>
  example.split('\n').filter((line) => line.trim() !== '' && !/^\s*(\/[/*]|\*)/.test(line)).length

test('the smallest host has about 40 lines, the LMDB host fewer than 130 and the host on SQL fewer than 200', () => {
  const small = linesOf(findOnce(/^```ts\n((?:(?!^```).)*?class MapHost .*?)^```/gms, 'the smallest host'))
  assert.ok(small <= 48, `the smallest host has ${small} lines`)
  const lmdb = linesOf(findOnce(/^```ts\n((?:(?!^```).)*?class LmdbHost .*?)^```/gms, 'the LMDB host'))
  assert.ok(lmdb > 50 && lmdb < 130, `the LMDB host has ${lmdb} lines`)
  const sql = linesOf(findOnce(/^```ts\n((?:(?!^```).)*?class SqliteHost .*?)^```/gms, 'the host on SQL'))
  assert.ok(sql > 50 && sql < 200, `the host on SQL has ${sql} lines`)
})

test('the example for Prometheus has at most 25 lines', () => {
  const lines = linesOf(findOnce(/^```ts\n((?:(?!^```).)*?openWithPrometheus.*?)^```/gms, 'the example for Prometheus'))
  assert.ok(lines <= 25, `it has ${lines} lines`)
})

test('the top README is short', () => {
  const lines = readmes.get('README.md')!.trimEnd().split('\n').length
  assert.ok(lines <= MAX_README_LINES, `${lines} lines`)
})

/** The rows of the only table with this header. */
function tableUnder(header: string): string[] {
  const escaped = header.replaceAll(/[|?]/g, '\\$&')
  return findOnce(new RegExp(`^${escaped}\\n\\|[-|]+\\n((?:\\|.*\\n)+)`, 'gm'), `the table '${header}'`)
    .trimEnd()
    .split('\n')
}
/** The names in backticks in the first column. */
const namesIn = (rows: readonly string[]) =>
  rows.flatMap((row) => [...row.split(' | ')[0]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!))
const grouped = (value: number) => value.toLocaleString('en-US')

test('the table of operations has every operation with its method', () => {
  assert.deepEqual(
    tableUnder('| operation | method | example body | answer |').map((row) => row.split(' | ').slice(0, 2).join(' | ')),
    Object.entries(operations).map(([name, { method }]) => `| \`${name}\` | \`${method}\``),
  )
})

test('the table of events has every event in order', () => {
  assert.deepEqual(namesIn(tableUnder('| event | payload | when |')), eventNames)
})

test('the table of health conditions matches the code', () => {
  assert.deepEqual(
    tableUnder('| code | ready | what to do |').map((row) => row.split(' | ').slice(0, 2).join(' | ')),
    Object.entries(healthCodes).map(([code, { ready }]) => `| \`${code}\` | ${ready ? 'yes' : 'no'}`),
  )
})

test('the table of options matches the code', () => {
  assert.deepEqual(
    tableUnder('| option | default | range | what it bounds |'),
    Object.entries(bounds).map(
      ([name, { default: otherwise, min, max, what }]) =>
        `| \`${name}\` | ${grouped(otherwise)} | ${grouped(min)} to ${grouped(max)} | ${what} |`,
    ),
  )
})

test('the table of metrics matches the code', () => {
  assert.deepEqual(
    tableUnder('| instrument | in Prometheus | kind | unit | what it counts |'),
    metricDefinitions.map((definition) => {
      const { name, kind, unit, description } = definition
      return `| \`${name}\` | \`${prometheusName(definition)}\` | ${kind} | \`${unit}\` | ${description} |`
    }),
  )
})

test('the table of errors matches the code', () => {
  assert.deepEqual(
    tableUnder('| code | status | retry | what to do |'),
    Object.entries(errors).map(
      ([code, { statusCode, retryable, hint }]) =>
        `| \`${code}\` | ${statusCode} | ${retryable ? 'yes' : 'no'} | ${hint} |`,
    ),
  )
})

test('the sample configuration has every key and opens a manager', async (t) => {
  const yaml = findOnce(/^```yaml\n(rootPath.*?)^```/gms, 'the sample configuration')
  for (const path of Object.values(settingPaths))
    assert.notEqual(parseDocument(yaml).getIn(path.split('.')), undefined, `${path} is in the sample`)
  const [directory, remove] = await temporaryDirectory()
  const network = new MemoryNetwork()
  t.after(async () => {
    await network.close()
    await remove()
  })
  const configFile = join(directory, 'config.yaml')
  await writeFile(configFile, yaml.replace('/var/lib/database', directory))
  const cluster = await ClusterManager.open({ configFile, host: new MemoryHost(), mesh: network.mesh() })
  const { nodeName, enabled, routes, nodes } = cluster.manifest
  await cluster.close()
  assert.deepEqual([nodeName, enabled, routes.hub], ['node1', true, [{ host: '10.0.0.2', port: 9932 }]])
  assert.deepEqual(nodes[0]!.subscriptions, [{ database: 'dev', table: 'dog', publish: true, subscribe: true }])
})

/** The text without code blocks. */
const proseOf = (text: string) => text.replaceAll(/^(```+)[^\n]*\n.*?^\1$/gms, '')
/** Targets of links and images, without those in inline code. */
const linksIn = (text: string) =>
  [
    ...proseOf(text)
      .replaceAll(/`[^`\n]+`(?!\])/g, '')
      .matchAll(/\]\(([^)\s]+)\)/g),
  ].map(([, target]) => target!)

/** The anchors that GitHub gives to the headings of a document. */
function anchorsOf(text: string): Set<string> {
  const anchors = new Set<string>()
  for (const [, heading] of proseOf(text).matchAll(/^#+ +(.+)$/gm)) {
    const plain = heading!.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase()
    const slug = plain.replaceAll(/[^\p{L}\p{N}\p{M} _-]/gu, '').replaceAll(' ', '-')
    let anchor = slug
    for (let count = 1; anchors.has(anchor); count++) anchor = `${slug}-${count}`
    anchors.add(anchor)
  }
  return anchors
}

test('links between documents lead to files and headings', async () => {
  const documents = new Map([...readmes, ['CHANGELOG.md', await read('CHANGELOG.md')]])
  const broken: string[] = []
  for (const [path, text] of documents)
    for (const link of linksIn(text)) {
      if (/^[a-z]+:/.test(link)) continue
      const [file = '', anchor] = link.split('#')
      const target = file === '' ? path : posix.join(dirname(path), file)
      if (!existsSync(join(root, target))) broken.push(`${path}: ${link}: no such file`)
      else if (anchor !== undefined && !anchorsOf(documents.get(target) ?? (await read(target))).has(anchor))
        broken.push(`${path}: ${link}: no such heading`)
    }
  assert.deepEqual(broken, [])
})

test('documents in the package link only to files in the package', async () => {
  const { files } = JSON.parse(await read('package.json')) as { files: string[] }
  // npm always packs the first three.
  const packed = new Set(['README.md', 'LICENSE', 'package.json', ...files.filter((pattern) => !pattern.includes('*'))])
  for (const pattern of files.filter((pattern) => pattern.includes('*'))) {
    const [directory = '', extension = ''] = pattern.split('/**/*')
    for (const path of await readdir(join(root, directory), { recursive: true }))
      if (path.endsWith(extension)) packed.add(posix.join(directory, path.replaceAll('\\', '/')))
  }
  assert.ok(packed.has('CHANGELOG.md'))
  const missing: string[] = []
  for (const [path, text] of readmes) {
    if (path.startsWith('test/')) continue
    assert.ok(packed.has(path), `${path} is in the package`)
    for (const link of linksIn(text)) {
      if (/^([a-z]+:|#)/.test(link)) continue
      const target = posix.join(dirname(path), link.split('#')[0]!).replace(/\/$/, '')
      const isDirectory = existsSync(join(root, target)) && statSync(join(root, target)).isDirectory()
      const isPacked = isDirectory ? [...packed].some((file) => file.startsWith(`${target}/`)) : packed.has(target)
      if (!isPacked) missing.push(`${path}: ${link}`)
    }
  }
  assert.deepEqual(missing, [])
})
