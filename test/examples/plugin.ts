// The README's plugin: handed a view, it watches and changes nothing. Compiled and run by tests.

import type { ClusterView } from '../../lib/index.ts'

/** Tells people what they should look into, until the signal aborts. */
export function alerts({ events, subscriptions }: ClusterView, tell: (text: string) => void, signal: AbortSignal) {
  events.on('peer:down', ({ node }) => tell(`${node} is gone`), { signal })
  events.on(
    'subscription:state',
    ({ source, state, error }) => {
      if (state === 'stalled') tell(`${source.table} of ${source.node} does not move: ${error}`)
    },
    { signal },
  )
  events.on('replication:gap', ({ source, from, to }) => tell(`${source.table}: ${from} to ${to} are lost`), { signal })
  const late = setInterval(() => {
    for (const { source, lagSeconds } of subscriptions())
      if (lagSeconds > 60) tell(`${source.table} of ${source.node} is ${Math.round(lagSeconds)} s behind`)
  }, 10_000)
  signal.addEventListener('abort', () => clearInterval(late), { once: true })
}
