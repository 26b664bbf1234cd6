// What a holder of the credentials sends on purpose, and what two nodes do to each other without one: requests end, with a ClusterError if they
// fail, and the log stays bounded.

import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { makeTimestamp } from '../../lib/host/hybrid-clock.ts'
import type { Logger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { decodeResponse, encode } from '../../lib/peers/protocol.ts'
import { encodeKeys } from '../../lib/replication/copy/row-page.ts'
import { MemoryHost, MemoryNetwork } from '../../lib/testing.ts'
import { systemTimers } from '../../lib/util/timers.ts'
import { startRowNode } from '../support/row-nodes.ts'

type Line = { reason?: string; count?: number }

/** One node whose network is the test: `answer` is what the other node sends. */
function open(test: TestContext, answer?: unknown) {
  const lines: Line[] = []
  let receive = async (_data: Uint8Array): Promise<Uint8Array> => assert.fail()
  const warn: Logger['warn'] = (fields) => void lines.push(fields as Line)
  const peers = new Peers({
    node: 'node1',
    logger: { debug() {}, info() {}, warn, error() {} },
    host: new MemoryHost(),
    requestTimeout: 1_000,
    positions: () => [],
    listener: { rejected() {} },
    mesh: {
      timers: systemTimers,
      session: 's',
      serve: (handler: typeof receive) => {
        receive = handler
      },
      listen: () => {},
      announce: () => {},
      request: async () => encode({ status: 'error', v: 1, message: answer }),
    },
  } as never)
  peers.start()
  test.after(() => peers.close())
  return { peers, lines, send: async (data: Uint8Array) => decodeResponse(await receive(data)) }
}

describe('a refusal of a peer', () => {
  for (const [what, message, expected] of [
    ['with a big integer', { code: 2n ** 63n }, /"9223372036854775808"/],
    ['without a reason', null, /node2/],
    ['as long as a message', 'x'.repeat(1_000_000), /x…/],
  ] as const)
    it(`${what} is rejected as such`, async (test) => {
      const { peers } = open(test, message)
      await assert.rejects(peers.describeTables('node2', { operation: 'describe_all' }), (error: Error) => {
        assert.equal((error as { code?: string }).code, 'peer_rejected')
        assert.match(error.message, expected)
        assert.ok(error.message.length < 1_000)
        return true
      })
    })
})

it('a flood of invalid requests does not fill the log', async (test) => {
  const { lines, send } = open(test)
  for (let index = 0; index < 100; index++) {
    const answer = await send(encode({ operation: 'drop_all', v: 1, node_name: 'node2' }))
    assert.deepEqual([answer?.status, answer?.message], ['error', "Operation 'drop_all' not found"])
  }
  assert.equal(lines.length, 20)
  const answer = await send(encode({ operation: 'x'.repeat(1_000_000), v: 1, node_name: 'node2' }))
  assert.equal(answer?.message, 'unreadable request')
})

it('two nodes that repair tables of each other at once do not wait for each other', async (test) => {
  const network = new MemoryNetwork()
  const dog = { database: 'dev', table: 'dog' }
  const start = async (name: string, other: string) => {
    const host = new MemoryHost({ tables: [dog] })
    const writes = [{ operation: 'upsert' as const, ...dog, records: [{ id: name }] }]
    host.commitAs({ id: name, timestamp: makeTimestamp(1, 0, name), writes })
    const subscriptions = { [other]: [{ ...dog, publish: true, subscribe: true }] }
    return { database: host, ...(await startRowNode(test, network, name, { host, subscriptions })) }
  }
  const [one, two] = [await start('node1', 'node2'), await start('node2', 'node1')]
  const repair = ({ name, peers }: typeof one, other: string) =>
    Array.from({ length: 4 }, () =>
      peers.request(
        other,
        { operation: 'repair_rows', rows: { ...dog, keys: encodeKeys([name]) } },
        { operation: 'verify' },
      ),
    )
  await Promise.all([...repair(one, 'node2'), ...repair(two, 'node1')])
  for (const { database } of [one, two]) for (const id of ['node1', 'node2']) assert.ok(database.get('dev', 'dog', id))
})
