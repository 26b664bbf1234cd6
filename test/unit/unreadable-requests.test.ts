// A node that cannot read a request says so, and does not look like a node of HarperDB by that.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { systemTimers } from '../../lib/util/timers.ts'

function open(test: { after(work: () => unknown): void }, other?: (data: Uint8Array) => Promise<Uint8Array>) {
  let answer = async (_: Uint8Array): Promise<Uint8Array> => Buffer.alloc(0)
  const peers = new Peers({
    node: 'node1',
    logger: silentLogger,
    positions: () => [],
    host: { info: () => ({ version: '1' }) },
    mesh: {
      timers: systemTimers,
      session: 's',
      serve: (handler: typeof answer) => {
        answer = handler
      },
      listen: () => {},
      announce: () => {},
      request: (_: string, data: Uint8Array) => other!(data),
    },
  } as never)
  peers.start()
  test.after(() => peers.close())
  return { peers, answer: (data: Uint8Array) => answer(data) }
}

it('a node that cannot read a request is not taken for one of HarperDB', async (test) => {
  const { answer } = open(test)
  const { peers } = open(test, () => answer(Buffer.of(0xc1)))
  await assert.rejects(
    peers.request('node2', { operation: 'describe_all' }, { operation: 'test' }),
    /unreadable request/,
  )
  assert.equal(peers.isHarper('node2'), false)
})
