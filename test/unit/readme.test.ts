// The README's examples are those that the compiler has seen, and its tables those of the code.

import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseDocument } from 'yaml'
import { bounds } from '../../lib/cluster/options.ts'
import { errors } from '../../lib/errors.ts'
import { ClusterManager, eventNames, metricDefinitions } from '../../lib/index.ts'
import { settingPaths } from '../../lib/manifest/settings.ts'
import { operations } from '../../lib/operations/index.ts'
import { MemoryHost, MemoryNetwork } from '../../lib/testing.ts'
import { temporaryDirectory } from '../support/cluster.ts'

const read = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')
/** Line breaks, the commas before them, and the columns of comments are the reader's; the formatter has its own. */
const words = (text: string) => text.replaceAll(/\s+/g, ' ').replaceAll(/, \}/g, ' }').trim()

const inThisOrder = [
  'types/readme-embed.ts',
  'examples/lmdb-host.ts',
  'types/readme-events.ts',
  'examples/plugin.ts',
  'types/readme-quarantine.ts',
  'examples/observing.ts',
  'examples/cluster.test.ts',
  'types/readme-testing.ts',
  'types/readme-host-contract.ts',
]

test('the examples of the README are the compiled ones', async () => {
  const examples = [...(await read('README.md')).matchAll(/^```ts\n(.*?)^```/gms)].map((match) => words(match[1]!))
  const compiled = await Promise.all(
    inThisOrder.map(async (path) => {
      const [, text = ''] = /^\/\/[^\n]*\n(.*)/s.exec(await read(`test/${path}`)) ?? []
      // What the compiler wants beside the example is exported at its end.
      const example = path.startsWith('types/') ? text.replace(/^export .*/ms, '') : text
      return words(
        example
          .replace('../../lib/index.ts', 'enmesh')
          .replace('../../lib/testing.ts', 'enmesh/testing')
          .replace('../examples/lmdb-host.ts', './lmdb-host.ts'),
      )
    }),
  )
  for (const [index, path] of inThisOrder.entries()) assert.equal(examples[index], compiled[index], path)
  assert.equal(examples.length, compiled.length)
})

/** The rows of the table under this line. */
async function tableUnder(header: string): Promise<string[]> {
  const lines = (await read('README.md')).split('\n')
  const start = lines.indexOf(header)
  assert.ok(start > 0, `the README has a table '${header}'`)
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('|'))
  return lines.slice(start + 2, end)
}
/** What stands in backticks in the first column. */
const names = (rows: readonly string[]) =>
  rows.flatMap((row) => [...row.split(' | ')[0]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!))
const grouped = (value: number) => value.toLocaleString('en-US')

test('the whole host has fewer than a hundred lines', async () => {
  const [, example = ''] = /^```ts\nimport \{ randomUUID(.*?)^```/ms.exec(await read('README.md')) ?? []
  const lines = example.split('\n').filter((line) => line.trim() !== '' && !/^\s*\//.test(line))
  assert.ok(lines.length > 50 && lines.length < 100, `${lines.length} lines`)
})

test('the table of operations has all of them, with their methods', async () => {
  const rows = await tableUnder('| operation | method | example body | answer |')
  assert.deepEqual(
    rows.map((row) => row.split(' | ').slice(0, 2).join(' | ')),
    Object.entries(operations).map(([name, { method }]) => `| \`${name}\` | \`${method}\``),
  )
})

test('the table of events has all of them, in their order', async () => {
  assert.deepEqual(names(await tableUnder('| event | payload | when |')), eventNames)
})

test('the table of options is the one of the code', async () => {
  assert.deepEqual(
    await tableUnder('| option | default | range | what it bounds |'),
    Object.entries(bounds).map(
      ([name, { default: otherwise, min, max, what }]) =>
        `| \`${name}\` | ${grouped(otherwise)} | ${grouped(min)} to ${grouped(max)} | ${what} |`,
    ),
  )
})

test('the table of metrics is the one of the code', async () => {
  assert.deepEqual(
    await tableUnder('| instrument | kind | unit | what it counts |'),
    metricDefinitions.map(
      ({ name, kind, unit, description }) => `| \`${name}\` | ${kind} | \`${unit}\` | ${description} |`,
    ),
  )
})

test('the sample of a configuration has every key there is, and opens a manager', async (t) => {
  const [, yaml = ''] = /^```yaml\n(rootPath.*?)^```/ms.exec(await read('README.md')) ?? []
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

test('the table of errors is the one of the code', async () => {
  const rows = Object.entries(errors).map(
    ([code, { statusCode, retryable, hint }]) =>
      `| \`${code}\` | ${statusCode} | ${retryable ? 'yes' : 'no'} | ${hint} |`,
  )
  assert.deepEqual(await tableUnder('| code | status | retry | what to do |'), rows)
})
