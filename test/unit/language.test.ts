// Plain, standard English: words of the private language of the first version stay out of sources, tests and documents.

import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const thisFile = basename(fileURLToPath(import.meta.url))
const PRIVATE =
  /\b(?:anew|whoever|somebody|mend(?:s|ed|ing)?|told|of ours|one's own|(?:is|are|was|were) none|hand(?:s|ed)? on)\b/i

async function files(): Promise<string[]> {
  const below = async (directory: string) =>
    (await readdir(join(root, directory), { recursive: true }))
      .filter((name) => /\.(?:ts|mjs|md)$/.test(name) && basename(name) !== thisFile)
      .map((name) => join(directory, name))
  return ['README.md', 'CHANGELOG.md', ...(await below('lib')), ...(await below('test'))]
}

test('no source, test or document uses words of a private language', async () => {
  const found: string[] = []
  for (const file of await files())
    for (const [index, line] of (await readFile(join(root, file), 'utf8')).split('\n').entries()) {
      const [word] = PRIVATE.exec(line) ?? []
      if (word) found.push(`${file}:${index + 1}: '${word}'`)
    }
  assert.deepEqual(found, [])
})

test('the words are found, also as parts of a sentence', () => {
  for (const text of ['It starts anew.', 'Whoever asks', 'is mended', 'The caller is told so', 'a start that is none'])
    assert.match(text, PRIVATE)
  for (const text of ['recommended', 'toldest', 'there is no node', 'our']) assert.doesNotMatch(text, PRIVATE)
})
