// Every holder of the credentials can send any number of heartbeats under any number of names: the memory for them is bounded.

import assert from 'node:assert/strict'
import { it, type TestContext } from 'node:test'
import { silentLogger } from '../../lib/observe/logger.ts'
import { Peers } from '../../lib/peers/peers.ts'
import { decodeHeartbeat, encode } from '../../lib/peers/protocol.ts'
import { systemTime, systemTimers } from '../../lib/util/timers.ts'

function open(test: TestContext) {
  const reported: Record<string, string[]> = { up: [], down: [], duplicate: [], superseded: [] }
  let receive = (_data: Uint8Array): void => {}
  const peers = new Peers({
    node: 'node1',
    logger: silentLogger,
    positions: () => [],
    mesh: {
      timers: systemTimers,
      session: 's',
      serve: () => {},
      listen: (handler: typeof receive) => {
        receive = handler
      },
      announce: () => {},
    },
    listener: {
      up: (name: string) => reported.up!.push(name),
      down: (name: string) => reported.down!.push(name),
      rejected: (name: string) => reported.duplicate!.push(name),
      superseded: () => reported.superseded!.push(''),
      returned: () => {},
      streams: () => {},
    },
  } as never)
  peers.start()
  test.after(() => peers.close())
  const heartbeat = (node: string, instance = node) =>
    receive(encode({ node, instance, started: 9e15, session: 's', streams: [] }))
  return { peers, reported, heartbeat }
}

it('ignores names beyond ten thousand until others expire', (test) => {
  let now = 1_000
  test.mock.method(systemTime, 'elapsed', () => now)
  const { peers, reported, heartbeat } = open(test)
  for (let index = 0; index < 12_000; index++) heartbeat(`n${index}`)
  assert.equal(reported.up!.length, 10_000)
  heartbeat('n0')
  assert.ok(peers.isUp('n0'))
  now += 60_001
  // The first check after a jump of the time takes it for a pause of the process.
  peers.sendHeartbeat()
  assert.equal(reported.down!.length, 0)
  now += 1_000
  peers.sendHeartbeat()
  assert.equal(reported.down!.length, 10_000)
  heartbeat('n11999')
  assert.ok(peers.isUp('n11999'))
})

it('reports at most a hundred processes that share the local or another name', (test) => {
  for (const name of ['node1', 'node2']) {
    const { reported, heartbeat } = open(test)
    for (let index = 0; index < 1_000; index++) for (const _ of [1, 2]) heartbeat(name, `${index % 2} ${index}`)
    assert.ok(reported.duplicate!.length <= 100, `${reported.duplicate!.length}`)
  }
})

it('does not unpack a message larger than 16 MB', () => {
  const heartbeat = (bytes: number) =>
    encode({ node: 'node2', instance: 'i', started: 1, session: 's', streams: [['dev', 'x'.repeat(bytes), 'e', 1, 1]] })
  assert.ok(decodeHeartbeat(heartbeat(15 * 1024 * 1024)))
  assert.equal(decodeHeartbeat(heartbeat(16 * 1024 * 1024)), undefined)
})
