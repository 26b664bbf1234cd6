// The host never gets the position of an epoch that is over after that of a newer one.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { PublishConfirmation } from '../../lib/host/host.ts'
import type { Outbox } from '../../lib/host/outbox.ts'
import { PublishedPositions } from '../../lib/replication/publish/published-positions.ts'

const dog = { database: 'dev', table: 'dog' }
const cat = { database: 'dev', table: 'cat' }

function start() {
  const calls: PublishConfirmation[] = []
  const finish: (() => void)[] = []
  const outbox = {
    confirmPublished: (confirmation: PublishConfirmation) => {
      calls.push(confirmation)
      return new Promise<void>((resolve) => finish.push(resolve))
    },
  } as unknown as Outbox
  /** `table:epoch@sequence` of each position of each call. */
  const stored = () =>
    calls.map(({ positions }) => positions.map(({ table, epoch, sequence }) => `${table}:${epoch}@${sequence}`).join())
  return { positions: new PublishedPositions(outbox), calls, finish, stored }
}

const turn = () => new Promise((resolve) => setImmediate(resolve))
const at = (table: typeof dog, epoch: string, sequence: number) => ({
  ...table,
  epoch,
  sequence,
  index: sequence,
  id: `${sequence}`,
})

it('a confirmation of an epoch that is over removes transactions and stores no position', async () => {
  const { positions, calls, finish, stored } = start()
  const begun = positions.begin(dog, { epoch: 'new', sequence: 10, index: 0 })
  await turn()
  finish[0]!()
  await begun
  void positions.confirm({ positions: [at(dog, 'old', 9), at(cat, 'old', 3)], upTo: { id: 'x', timestamp: 't' } })
  await turn()
  assert.deepEqual(stored(), ['dog:new@10', 'cat:old@3'])
  assert.deepEqual(calls[1]!.upTo, { id: 'x', timestamp: 't' })
})

it('an epoch that begins waits for the confirmation before it, and a confirmation for the epoch', async () => {
  const { positions, finish, stored } = start()
  const confirmed = positions.confirm({ positions: [at(dog, 'old', 9)] })
  await turn()
  const begun = positions.begin(dog, { epoch: 'new', sequence: 10, index: 0 })
  const late = positions.confirm({ positions: [at(dog, 'old', 10)] })
  await turn()
  assert.deepEqual(stored(), ['dog:old@9'], 'one call at a time')
  finish[0]!()
  await confirmed
  await turn()
  assert.deepEqual(stored(), ['dog:old@9', 'dog:new@10'])
  finish[1]!()
  await begun
  await turn()
  finish[2]!()
  await late
  assert.deepEqual(stored(), ['dog:old@9', 'dog:new@10', ''])
})

it('a position is dropped even if the host refused to store the beginning of the new epoch: it may have stored it', async () => {
  const stored: string[] = []
  const outbox = {
    confirmPublished: async ({ positions }: PublishConfirmation) => {
      stored.push(positions.map(({ epoch }) => epoch).join())
      if (stored.length === 1) throw new Error('the connection to the database was lost')
    },
  } as unknown as Outbox
  const positions = new PublishedPositions(outbox)
  await assert.rejects(positions.begin(dog, { epoch: 'new', sequence: 10, index: 0 }), /connection/)
  await positions.confirm({ positions: [at(dog, 'old', 9)] })
  await positions.confirm({ positions: [at(dog, 'new', 11)] })
  assert.deepEqual(stored, ['new', '', 'new'])
})
