// What the compiler must accept and reject of the public API; checked by `npm run check`, never run.

import {
  type AddNodeResponse,
  type ApplyMessage,
  ClusterError,
  ClusterManager,
  type ClusterStatusResponse,
  type ConnectionStatus,
  type EventMessage,
  type GetRoutesResponse,
  type Host,
  type Mesh,
  MeshError,
  type NetworkNode,
  type OperationMessage,
  type OperationResponse,
  type Payload,
  type PublishMessage,
  type Reader,
  type ResponseOf,
  type StreamState,
} from '../../lib/index.ts'

declare const host: Host

export async function accepted(): Promise<void> {
  const cluster = await ClusterManager.open({ configFile: 'config.yaml', host, password: async () => 'secret' })
  cluster.on('node:updated', ({ node, previous, cause }) => [node.name, previous.subscriptions, cause satisfies string])
  cluster.events.on('replication:gap', ({ source, from, to, lost, reason }) => [
    source.node,
    [from, to, lost] satisfies (number | undefined)[],
    reason,
  ])
  const { view } = cluster
  view.events.on('peer:down', ({ node }) => node satisfies string, { signal: AbortSignal.timeout(1_000) })
  view.metrics()?.apply.lagSeconds satisfies number | undefined
  const up = await cluster.events.once('peer:up', {
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

const superUser = { superUser: true }

/** `execute` has the types of the operation that the request names. */
export async function executes(cluster: ClusterManager, body: unknown): Promise<void> {
  const status = await cluster.execute({ operation: 'cluster_status' }, superUser)
  status satisfies ClusterStatusResponse
  status.connections[0] satisfies ConnectionStatus | undefined
  const added = await cluster.execute(
    { operation: 'add_node', node_name: 'node2', subscriptions: [{ table: 'dog', publish: true, subscribe: true }] },
    superUser,
  )
  added satisfies AddNodeResponse
  const routes = await cluster.execute({ operation: 'cluster_get_routes' }, superUser)
  routes satisfies GetRoutesResponse
  const any: OperationResponse = await cluster.execute(body, superUser)
  if ('nodes' in any) any.nodes satisfies NetworkNode[]
  const computed = { operation: String(body) }
  ;(await cluster.execute(computed, superUser)) satisfies OperationResponse
  await cluster.execute(JSON.parse(String(body)), superUser)
  // @ts-expect-error: the operation requires subscriptions
  await cluster.execute({ operation: 'add_node', node_name: 'node2' }, superUser)
  // @ts-expect-error: the type of a field is wrong
  await cluster.execute({ operation: 'cluster_network', timeout: 'soon' }, superUser)
  // @ts-expect-error: the answer belongs to another operation
  status.nodes
}

/** Methods take their body from the operation. */
export async function methods(cluster: ClusterManager): Promise<void> {
  await cluster.status()
  await cluster.network({}, { signal: AbortSignal.timeout(1_000) })
  await cluster.getRoutes()
  await cluster.removeNode({ node_name: 'node2' })
  await cluster.removeNode({ name: 'node2' })
  // @ts-expect-error: one of the names is required
  await cluster.removeNode({})
  // @ts-expect-error: a body is required
  await cluster.addNode()
  // @ts-expect-error: a body is required
  await cluster.removeNode()
  // @ts-expect-error: a body is required
  await cluster.setRoutes()
  // @ts-expect-error: a body is required
  await cluster.configureCluster()
  // @ts-expect-error: a body is required
  await cluster.purgeStream()
}

/** The messages on diagnostics channels. */
export function messages(message: unknown): unknown[] {
  return [
    (message as EventMessage<'peer:up'>).localNode satisfies string,
    (message as EventMessage<'replication:gap'>).from satisfies number | undefined,
    (message as OperationMessage).operation satisfies string,
    (message as PublishMessage).transaction.id satisfies string,
    (message as ApplyMessage).batch.transactions.length satisfies number,
  ]
}

/** A mesh can be written outside of this package. */
export class OwnReader implements Reader {
  next() {
    return Promise.reject(new MeshError('reader_lost'))
  }
  close() {}
}
export const partOfMesh: Pick<Mesh, 'streamState' | 'read' | 'request'> = {
  streamState: async (): Promise<StreamState | undefined> => undefined,
  read: async () => new OwnReader(),
  request: (node) => Promise.reject(new MeshError('no_responders', node)),
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
  // @ts-expect-error: a host is required
  await ClusterManager.open({ configFile: 'config.yaml' })
  // @ts-expect-error: plugins cannot emit
  cluster.events.emit('peer:up', { node: 'node2' })
  // @ts-expect-error: no such event
  await cluster.events.once('node:exploded')
  // @ts-expect-error: a view is read-only
  await cluster.view.close()
  // @ts-expect-error: a view does not publish
  await cluster.view.publish({ id: '1', timestamp: cluster.timestamp(), writes: [] })
  // @ts-expect-error: no such event
  await ClusterManager.open({ configFile: 'config.yaml', host, listeners: { 'node:exploded': () => {} } })
  // @ts-expect-error: no such code
  new ClusterError('nothing_like_it', 'text')
}
