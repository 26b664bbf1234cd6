// The limits of a copy: the plain `nats` client moves the same pages by requests through the same servers, one request at a time.

import { writesOfRow } from '../../lib/host/copied-row.ts'
import { decodePage } from '../../lib/replication/copy/row-page.ts'
import type { TestNode } from '../support/cluster.ts'
import type { Contender } from './compare.ts'
import { rateOf } from './flow.ts'
import type { Scene } from './nodes.ts'
import { meshClient } from './raw-client.ts'
import { dog, PAGE_ROWS, pageAfter, type RowsHost } from './rows-host.ts'

const TIMEOUT = 10_000
/** The default of `maxBatch`. */
const MAX_BATCH = 500

export const rawMoves = 'raw requests'
export const rawApplies = 'raw requests, applied'

type Ends = { from: TestNode; to: TestNode; rows: number }

/** Asks for pages, each when the one before has been taken, until all rows were moved. */
async function asking(
  scene: Scene,
  name: string,
  { from, to, rows }: Ends,
  answer: (after: number | undefined) => Promise<Uint8Array>,
  begin: () => (page: Uint8Array) => Promise<void>,
): Promise<Contender> {
  const [there, here] = [await meshClient(scene, from), await meshClient(scene, to)]
  const subject = `bench.rows.${name.replaceAll(/\W/g, '')}`
  there.subscribe(subject, {
    callback: (_, message) =>
      void answer(message.data.byteLength > 0 ? Number(message.string()) : undefined).then((page) =>
        message.respond(page),
      ),
  })
  await there.flush()
  return {
    name,
    run: async () => {
      const take = begin()
      return rateOf(async () => {
        for (let moved = 0; moved < rows; moved += PAGE_ROWS) {
          const after = moved === 0 ? '' : String(moved - 1)
          await take((await here.request(subject, after, { timeout: TIMEOUT })).data)
        }
        return rows
      })
    },
  }
}

/** Only moves bytes: every answer is the first page, and no answer is read. */
export async function movingPages(scene: Scene, ends: Ends, source: RowsHost): Promise<Contender> {
  const page = (await pageAfter(source, undefined))!
  return asking(
    scene,
    rawMoves,
    ends,
    async () => page,
    () => async () => {},
  )
}

/** With the necessary work of both databases: rows are read and encoded, decoded, and merged by `apply`. */
export function applyingPages(
  scene: Scene,
  ends: Ends,
  source: RowsHost,
  createTarget: () => RowsHost,
): Promise<Contender> {
  const remote = { node: ends.from.name, ...dog }
  const origin = { node: ends.from.name, relayedBy: [] }
  const begin = () => {
    const target = createTarget()
    const created = target.createTable({ ...dog, primaryKey: 'id', attributes: ['id'] })
    return async (page: Uint8Array) => {
      await created
      const transactions = decodePage(page).rows.flatMap((row) =>
        writesOfRow({ ...dog, primaryKey: 'id' }, row).map(({ timestamp, write }) => ({
          id: `copy:${row.key}:${timestamp}`,
          timestamp,
          writes: [write],
          origin,
          sequence: 0,
          index: 0,
        })),
      )
      const checkpoint = { epoch: '', sequence: 0 }
      for (let at = 0; at < transactions.length; at += MAX_BATCH)
        await target.apply({
          source: remote,
          transactions: transactions.slice(at, at + MAX_BATCH),
          checkpoint,
          isCopy: true,
        })
    }
  }
  return asking(scene, rawApplies, ends, async (after) => (await pageAfter(source, after))!, begin)
}
