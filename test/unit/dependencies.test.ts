// The lists of packages in the READMEs are current, and no licence is an unexpected one.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { lists, readDependencies } from '../support/list-dependencies.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
/** They allow use in products of any licence. Of two licences joined by OR, one of them is enough. */
const PERMISSIVE = [
  'MIT',
  'Apache-2.0',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'BlueOak-1.0.0',
  'Unlicense',
  'CC0-1.0',
]

for (const { file, table } of lists)
  test(`the list of packages in ${file} is current`, async () => {
    const expected = table(await readDependencies())
    const text = await readFile(join(root, file), 'utf8')
    assert.ok(`${text}\n`.includes(`\n${expected}\n\n`), 'It is not current: run npm run licenses')
  })

test('all licences are permissive', async () => {
  const others = (await readDependencies()).filter(
    ({ license }) => !license.split(/[() ]+|OR/).some((name) => PERMISSIVE.includes(name)),
  )
  assert.deepEqual(others, [])
})
