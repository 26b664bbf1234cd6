// The README's examples are those that the compiler has seen: test/types/readme-*.ts.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { errors } from '../../lib/errors.ts'

const read = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')
/** Line breaks and the columns of comments are the reader's; the formatter has its own. */
const words = (text: string) => text.replaceAll(/\s+/g, ' ').trim()

test('the examples of the README are the compiled ones', async () => {
  const readme = await read('README.md')
  const examples = [...readme.matchAll(/^```ts\n(.*?)^```/gms)].map((match) => words(match[1]!))
  const compiled = await Promise.all(
    ['embed', 'events', 'quarantine', 'testing'].map(async (name) => {
      const [, example = ''] = /^\/\/[^\n]*\n(.*)^export /ms.exec(await read(`test/types/readme-${name}.ts`)) ?? []
      return words(example.replace('../../lib/index.ts', 'enmesh').replace('../../lib/testing.ts', 'enmesh/testing'))
    }),
  )
  assert.deepEqual(compiled, examples)
})

test('the table of errors is the one of the code', async () => {
  const [, table = ''] = /^## Errors\n.*?^\|---.*?\n(.*?)\n\n/ms.exec(await read('README.md')) ?? []
  const rows = Object.entries(errors).map(
    ([code, { statusCode, retry, hint }]) => `| \`${code}\` | ${statusCode} | ${retry ? 'yes' : 'no'} | ${hint} |`,
  )
  assert.deepEqual(table.split('\n'), rows)
})
