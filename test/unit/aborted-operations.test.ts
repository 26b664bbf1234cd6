// The reason of a caller's signal is no result of an operation: it is `aborted`, with the reason as its cause.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import { call, type OperationContext } from '../../lib/operations/index.ts'

it('an operation whose work rejects with the reason of the signal rejects with aborted', async () => {
  for (const reason of [undefined, new Error('enough'), 'enough']) {
    const members = ({ signal }: { signal: AbortSignal }) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const store = { manifest: { nodeName: 'node1', enabled: true } }
    const context = { store, mesh: { members }, isSuperseded: false } as unknown as OperationContext
    const stop = new AbortController()
    const network = call(context, 'cluster_network', {}, { signal: stop.signal })
    stop.abort(reason)
    await assert.rejects(network, { name: 'ClusterError', code: 'aborted', cause: stop.signal.reason })
  }
})
