// A property whose runs hang, or that fails and is searched for its smallest input, ends in time.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { it } from 'node:test'
import { fileURLToPath } from 'node:url'
import fc from '../support/properties.ts'

it('every test has fast-check with a limit of time', () => {
  const root = fileURLToPath(new URL('..', import.meta.url))
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'))
  const importing = files.filter((name) =>
    /^import .* from 'fast-check'/m.test(readFileSync(`${root}/${name}`, 'utf8')),
  )
  assert.deepEqual(importing, ['support/properties.ts'])
  assert.ok(fc.readConfigureGlobal().interruptAfterTimeLimit! <= 3_600_000)
})

it('a search for the smallest input ends with the limit of time', async () => {
  let runs = 0
  const slow = fc.asyncProperty(fc.uint8Array({ minLength: 40, maxLength: 64 }), async () => {
    runs++
    await new Promise((resolve) => setTimeout(resolve, 20))
    throw new Error('it hangs')
  })
  await assert.rejects(fc.assert(slow, { interruptAfterTimeLimit: 100 }), /Property failed after 1 tests/)
  assert.ok(runs < 20, `${runs} runs`)
})
