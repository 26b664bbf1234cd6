// When a process of an earlier run has ended, and its ports are free.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isEnded } from '../../lib/mesh/nats/processes.ts'

const status = (name: string, state: string, threads: number) =>
  `17 (${name}) ${state} 1 17 17 0 -1 4228100 0 0 0 0 0 0 0 0 20 0 ${threads} 0 100 0 0`

test('a process has ended when its first thread is gone and no other one is left, which may hold its ports', () => {
  assert.equal(isEnded(status('nats-server', 'S', 9)), false)
  assert.equal(isEnded(status('nats-server', 'Z', 3)), false)
  assert.equal(isEnded(status('nats-server', 'Z', 1)), true)
  assert.equal(isEnded(status('a) Z (b', 'S', 1)), false)
  assert.equal(isEnded(''), false, 'without /proc the signal alone decides')
})
