// What the compiler must accept and refuse of the public surface; checked by `npm run check`, never run.

import { ClusterError, ClusterManager, type Host, type Payload, type ResponseOf } from '../../lib/index.ts'

declare const host: Host

export async function accepted(): Promise<void> {
  const cluster = await ClusterManager.open({ configFile: 'config.yaml', host, password: async () => 'secret' })
  cluster.on('node:updated', ({ node, previous, cause }) => [node.name, previous.subscriptions, cause satisfies string])
  cluster.events.once('replication:gap', ({ source, from, to, reason }) => [source.node, to - from, reason])
  const { view } = cluster
  view.events.once('peer:down', ({ node }) => node satisfies string, { signal: AbortSignal.timeout(1_000) })
  view.metrics()?.apply.lagSeconds satisfies number | undefined
  const up = await cluster.events.next('peer:up', {
    where: ({ node }) => node !== '',
    signal: AbortSignal.timeout(1_000),
  })
  up.node satisfies string
  for await (const { state, source } of cluster.events.iterate('subscription:state')) [state, source.node]
  const answer: ResponseOf<'cluster_set_routes'> = await cluster.setRoutes({
    server: 'hub',
    routes: [{ host: '10.0.0.2', port: 9932 }],
  })
  answer.set satisfies { readonly host: string; readonly port: number }[]
  const { connections } = await cluster.status()
  connections[0]?.latency_ms satisfies number | undefined
  await cluster.addNode(
    { node_name: 'node2', subscriptions: [{ table: 'dog', publish: true, subscribe: true }] },
    { signal: AbortSignal.timeout(1_000) },
  )
  const payload: Payload<'peer:up'> = { node: 'node2' }
  cluster.timestamp() satisfies string
  cluster.manifest.routes.hub satisfies readonly { readonly host: string }[]
  try {
    await cluster.execute({ operation: 'cluster_status' }, { superUser: true })
  } catch (error) {
    if (error instanceof ClusterError) [error.code === 'forbidden', error.statusCode, error.issues?.[0]?.path, payload]
  }
}

export async function rejected(cluster: ClusterManager): Promise<void> {
  // @ts-expect-error: no such event
  cluster.on('node:exploded', () => {})
  // @ts-expect-error: no such key in the payload
  cluster.on('peer:up', ({ nodeName }) => nodeName)
  // @ts-expect-error: server is hub or leaf
  await cluster.setRoutes({ server: 'middle', routes: [] })
  // @ts-expect-error: publish and subscribe are required
  await cluster.updateNode({ node_name: 'node2', subscriptions: [{ table: 'dog' }] })
  // @ts-expect-error: the manifest is read only
  cluster.manifest.nodes.push({ name: 'node2', subscriptions: [] })
  // @ts-expect-error: a host is needed
  await ClusterManager.open({ configFile: 'config.yaml' })
  // @ts-expect-error: plugins cannot emit
  cluster.events.emit('peer:up', { node: 'node2' })
  // @ts-expect-error: no such event
  await cluster.events.next('node:exploded')
  // @ts-expect-error: a view shows, and that is all
  await cluster.view.close()
  // @ts-expect-error: nor does it publish
  await cluster.view.publish({ id: '1', timestamp: cluster.timestamp(), writes: [] })
  // @ts-expect-error: no such event
  await ClusterManager.open({ configFile: 'config.yaml', host, listeners: { 'node:exploded': () => {} } })
  // @ts-expect-error: no such code
  new ClusterError('nothing_like_it', 'text')
}
