// A copy of rows whose timestamps a wrong clock made, when the source restamps them: it does not wait for their time.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import { eventually } from '../support/cluster.ts'
import { CopyPair } from '../support/copy-pair.ts'
import { insert } from '../support/memory-host.ts'

const put = (id: string, value = 0) => insert('dog', { id, value })
const DAY = 86_400_000

describe('a copy of rows with wrong timestamps', { concurrency: true, timeout: 60_000 }, () => {
  it('ends soon after their restamp, also in another process', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    const wrong = makeTimestamp(Date.now() + 9 * DAY, 0, source.name)
    source.host.commitAs({ id: 'f', timestamp: wrong, writes: [put('f')] })
    source.commitOnly(put('a'))
    await pair.subscribe()
    await eventually('it waits', () => pair.status().error?.startsWith('rows with timestamps of the future'))
    await pair.restart()
    await eventually('it waits', () => pair.status().error?.startsWith('rows with timestamps of the future'))
    source.restamp('f', wrong, put('f'))
    await pair.copies(1)
    await pair.live()
    assert.equal((await pair.checkpoint())!.copy, undefined)
    assert.deepEqual(pair.rowsOf(pair.host), pair.rowsOf(source.host))
  })

  it('ends soon after a restamp that arrives before the page that has them', async (test) => {
    const pair = await CopyPair.open(test)
    const { source } = pair
    const wrong = makeTimestamp(Date.now() + 9 * DAY, 0, source.name)
    source.host.commitAs({ id: 'f', timestamp: wrong, writes: [put('f')] })
    const stale = await source.host.readRows({ database: 'dev', table: 'dog' }, { limit: 10 })
    const page = pair.rows.page.bind(pair.rows)
    let release = () => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let pages = 0
    pair.rows.page = async (...request) => {
      if (++pages > 1) return page(...request)
      await released
      return { rows: stale }
    }
    await pair.subscribe()
    await eventually('the page is requested', () => pages === 1)
    source.restamp('f', wrong, put('f'))
    await eventually('it is applied', () => pair.host.get('dev', 'dog', 'f') !== undefined)
    release()
    await pair.copies(1)
    await pair.live()
    assert.deepEqual(pair.rowsOf(pair.host), pair.rowsOf(source.host))
  })
})
