// All rows of a source arrive in order, page by page; the next pages are requested while one is applied.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { KeyedRow, PrimaryKey } from '../../lib/index.ts'
import { AllRows } from '../../lib/replication/copy/row-feed.ts'
import type { ArrivedPage, RowRequests } from '../../lib/replication/copy/row-requests.ts'

const source = { node: 'node1', database: 'dev', table: 'dog' }
const rowOf = (key: PrimaryKey): KeyedRow => ({
  key,
  row: { timestamp: '019a00000000-000000-node1', record: { id: key } },
})
const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Pages of one row each, with the keys 1 to `count`, which arrive when the test says so. */
class Pages implements Pick<RowRequests, 'arrivedPage'> {
  readonly requested: (PrimaryKey | undefined)[] = []
  readonly read: number[] = []
  readonly #waiting: (() => void)[] = []
  readonly #count: number

  constructor(count: number) {
    this.#count = count
  }

  async arrivedPage(_: unknown, after: PrimaryKey | undefined): Promise<ArrivedPage> {
    this.requested.push(after)
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
    const key = Number(after ?? 0) + 1
    if (key > this.#count) return { last: undefined, read: () => ({ rows: [] }) }
    return {
      last: key,
      read: () => {
        this.read.push(key)
        return { rows: [rowOf(key)] }
      },
    }
  }

  /** Resolves when what follows from the arrival of the pages has happened. */
  async arrive(): Promise<void> {
    for (const arrive of this.#waiting.splice(0)) arrive()
    await turn()
  }
}

function rowsOf(pages: Pages) {
  const rows = new AllRows({
    source,
    requests: pages as unknown as RowRequests,
    host: { readRows: async () => [] },
    primaryKey: async () => 'id',
    acceptOld: false,
    isAnnounced: () => false,
  })
  const abort = new AbortController()
  const next = async () => {
    const { rows: found } = await rows.next(abort.signal)
    rows.done()
    return found.map(({ key }) => key)
  }
  return { next, abort }
}

it('two pages are ahead of the one that is applied, and are decoded when it is their turn', async () => {
  const pages = new Pages(4)
  const { next } = rowsOf(pages)
  const first = next()
  assert.deepEqual(pages.requested, [undefined])
  for (let round = 0; round < 5; round++) await pages.arrive()
  assert.deepEqual(await first, [1])
  assert.deepEqual([pages.requested, pages.read], [[undefined, 1, 2], [1]])
  assert.deepEqual(await next(), [2])
  assert.deepEqual(
    [pages.requested, pages.read],
    [
      [undefined, 1, 2, 3],
      [1, 2],
    ],
  )
  await pages.arrive()
  assert.deepEqual([await next(), pages.requested], [[3], [undefined, 1, 2, 3, 4]])
  await pages.arrive()
  assert.deepEqual([await next(), await next()], [[4], []])
  assert.deepEqual(pages.requested, [undefined, 1, 2, 3, 4])
})

it('nothing is requested any more after the copy was stopped', async () => {
  const pages = new Pages(4)
  const { next, abort } = rowsOf(pages)
  const first = next()
  abort.abort()
  await assert.rejects(first, { name: 'AbortError' })
  await pages.arrive()
  await assert.rejects(next(), { name: 'AbortError' })
  assert.deepEqual(pages.requested, [undefined])
})
