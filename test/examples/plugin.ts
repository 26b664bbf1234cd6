// The example of a plugin in the README: it receives a read-only view. Tests compile and run it.

import type { ClusterView } from '../../lib/index.ts'

/** Sends alerts to operators until the signal aborts. */
export function alerts({ events, subscriptions }: ClusterView, notify: (text: string) => void, signal: AbortSignal) {
  events.on('peer:down', ({ node }) => notify(`${node} is down`), { signal })
  events.on(
    'subscription:state',
    ({ source, state, error }) => {
      if (state === 'stalled') notify(`${source.table} of ${source.node} is stalled: ${error}`)
    },
    { signal },
  )
  events.on('replication:gap', ({ source, from, to }) => notify(`${source.table}: ${from} to ${to} are lost`), {
    signal,
  })
  const late = setInterval(() => {
    for (const { source, lagSeconds } of subscriptions())
      if (lagSeconds > 60) notify(`${source.table} of ${source.node} is ${Math.round(lagSeconds)} s behind`)
  }, 10_000)
  signal.addEventListener('abort', () => clearInterval(late), { once: true })
}
