// Observability of a manager: view, diagnostics channels, traces, metrics, progress and log.

import assert from 'node:assert/strict'
import { type ChannelListener, subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel'
import { describe, it, type TestContext } from 'node:test'
import {
  AggregationTemporality,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import pino from 'pino'
import {
  type ClusterView,
  type EventName,
  eventNames,
  type Meter,
  metricDefinitions,
  type Progress,
  type Traced,
  traceContext,
} from '../../lib/index.ts'
import { ProgressReport } from '../../lib/observe/progress.ts'
import { MemoryNetwork, type StartOptions, startCluster, TestClock } from '../../lib/testing.ts'

const dogs = [{ database: 'dev', table: 'dog' }]

async function two(t: TestContext, options: StartOptions = {}) {
  const network = options.network ?? new MemoryNetwork()
  const cluster = await startCluster(2, { network, tables: dogs, ...options })
  t.after(() => cluster.close())
  const [one, two] = cluster.nodes
  return { cluster, network, one: one!, two: two! }
}

/** The paths of all objects in `value` that are not frozen. */
function mutablePaths(value: unknown, path = 'it', found: string[] = []): string[] {
  if (typeof value !== 'object' || value === null || value instanceof Error) return found
  if (!Object.isFrozen(value)) found.push(path)
  for (const [key, inner] of Object.entries(value)) mutablePaths(inner, `${path}.${key}`, found)
  return found
}

describe('the view', () => {
  it('shows state and events of the manager, and is read-only', async (t) => {
    const { one, cluster } = await two(t)
    const view: ClusterView = one.cluster.view
    assert.equal(view.state, 'open')
    assert.equal(view.manifest, one.cluster.manifest)
    assert.deepEqual(Object.keys(view).sort(), [
      'clock',
      'events',
      'health',
      'linksOf',
      'manifest',
      'meshReason',
      'meshState',
      'metrics',
      'peers',
      'quarantine',
      'replicas',
      'state',
      'subscriptions',
      'tombstoneLimit',
    ])
    assert.deepEqual([view.meshState, view.peers()], ['connected', [{ node: 'node2', up: true }]])
    assert.ok(Object.isFrozen(view))
    assert.deepEqual(mutablePaths(view.manifest), [])
    const status = view.subscriptions()
    assert.throws(() => Object.assign(status[0]!.source, { node: 'another' }), TypeError)
    status.length = 0
    Object.assign(view.metrics()!.apply.subscriptions, { live: 99 })
    assert.equal(view.subscriptions().length, 1)
    assert.equal(view.metrics()!.apply.subscriptions.live, 1)
    await cluster.close()
    assert.equal(view.state, 'closed')
  })

  it('emits deeply frozen payloads', async (t) => {
    const payloads = new Map<EventName, unknown>()
    const listeners = Object.fromEntries(
      eventNames.map((name) => [name, (payload: unknown) => void payloads.set(name, payload)]),
    )
    const { one, network, cluster } = await two(t, { options: { listeners } })
    await one.cluster.setRoutes({ server: 'hub', routes: [{ host: '10.0.0.9', port: 9932 }] })
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    network.crash('node2')
    await one.cluster.removeNode({ node_name: 'node2' })
    for (const [name, payload] of payloads) assert.deepEqual(mutablePaths(payload, name), [])
    for (const name of [
      'manifest:changed',
      'route:added',
      'node:removed',
      'mesh:state',
      'subscription:state',
      'replication:applied',
      'peer:up',
    ])
      assert.ok(payloads.has(name as EventName), name)
  })
})

type Context = {
  node: string
  operation?: string
  transaction?: { writes: unknown[] }
  batch?: { transactions: unknown[] }
  error?: { code: string }
}

describe('diagnostics channels', () => {
  const listen = (t: TestContext, name: string, listener: ChannelListener) => {
    subscribe(name, listener)
    t.after(() => unsubscribe(name, listener))
  }

  it('carry every event, with the name of the local node', async (t) => {
    const reported: unknown[] = []
    listen(t, 'enmesh:node:added', (message) => reported.push(message))
    const { one, two: other } = await two(t)
    const by = (name: string) =>
      (reported as { localNode: string; node: { name: string } }[]).find(({ localNode }) => localNode === name)
    assert.equal(by('node1')!.node.name, 'node2')
    assert.equal(by('node2')!.node, other.cluster.manifest.nodes[0])
    assert.equal(by('node1')!.node, one.cluster.manifest.nodes[0])
  })

  it('trace operations, published transactions and applied batches', async (t) => {
    const spans: string[] = []
    const texts: Record<keyof Traced, (context: Context) => unknown> = {
      operation: ({ operation }) => operation,
      publish: ({ transaction }) => transaction?.writes.length,
      apply: ({ batch }) => batch?.transactions.length,
    }
    for (const [name, text] of Object.entries(texts)) {
      const channels = tracingChannel<string, Context>(`enmesh:${name}`)
      const record =
        (what: string) =>
        (context: Context): void =>
          void spans.push(
            `${name} ${context.node} ${text(context)}${what}${context.error ? ` ${context.error.code}` : ''}`,
          )
      const handlers = {
        start: record(''),
        asyncEnd: record(' done'),
        error: record(' failed:'),
        end() {},
        asyncStart() {},
      }
      channels.subscribe(handlers)
      t.after(() => channels.unsubscribe(handlers))
    }
    const { one, cluster } = await two(t)
    spans.length = 0
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    await one.cluster.execute({ operation: 'cluster_get_routes' }, { superUser: true })
    await one.cluster.execute({ operation: 'nothing_like_it' }, { superUser: true }).catch(() => {})
    await one.cluster.removeNode({ node_name: 'node3' }).catch(() => {})
    for (const expected of [
      'publish node1 1',
      'publish node1 1 done',
      'apply node2 1',
      'apply node2 1 done',
      'operation node1 cluster_get_routes done',
      'operation node1 nothing_like_it failed: operation_unknown',
      'operation node1 remove_node failed: node_not_found',
    ])
      assert.ok(spans.includes(expected), `${expected} among ${spans.join(', ')}`)
  })
})

describe('a trace context', () => {
  const trace = { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', tracestate: 'vendor=1' }

  it('travels with its transaction to the node that applies it', async (t) => {
    const network = new MemoryNetwork()
    const { cluster, one } = await two(t, { network })
    const batches: unknown[] = []
    cluster.nodes[1]!.host.beforeApply = ({ transactions }) =>
      void batches.push(...transactions.map((each) => each.trace))
    const commit = (id: string, given: object) => {
      const transaction = {
        id,
        timestamp: one.cluster.timestamp(),
        writes: [{ operation: 'insert' as const, ...dogs[0]!, records: [{ id }] }],
        ...given,
      }
      one.host.commitAs(transaction)
      return one.cluster.publish(transaction)
    }
    await commit('with', { trace })
    await commit('without', {})
    await commit('wrong', { trace: { traceparent: 'nonsense', tracestate: 'x' } })
    await commit('half wrong', { trace: { ...trace, tracestate: 'two\r\nlines' } })
    await cluster.converged()
    assert.deepEqual(batches, [trace, undefined, undefined, { traceparent: trace.traceparent }])
  })

  it('is valid by the rules of the W3C', () => {
    assert.deepEqual(traceContext(trace), trace)
    for (const traceparent of [
      undefined,
      '',
      'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
      '00-00000000000000000000000000000000-00f067aa0ba902b7-01',
      '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01',
      '00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01',
    ])
      assert.equal(traceContext({ traceparent }), undefined, traceparent)
  })
})

describe('a meter', () => {
  it('of OpenTelemetry collects all metrics, until the manager is closed', async (t) => {
    const exporter = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
    const reader = new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 2 ** 30 })
    const provider = new MeterProvider({ readers: [reader] })
    t.after(() => provider.shutdown())
    const otel = provider.getMeter('test')
    const callbacks = new Set<unknown>()
    const meter: Meter = {
      createObservableCounter: (name, options) => otel.createObservableCounter(name, options),
      createObservableGauge: (name, options) => otel.createObservableGauge(name, options),
      createHistogram: (name, options) => otel.createHistogram(name, options),
      addBatchObservableCallback: (callback, instruments) => {
        callbacks.add(callback)
        otel.addBatchObservableCallback(callback, instruments)
      },
      removeBatchObservableCallback: (callback) => void callbacks.delete(callback),
    }
    otel satisfies Meter
    const { one, cluster } = await two(t, { options: { meter } })
    await one.host.insert('dev', 'dog', { id: 1 })
    await cluster.converged()
    await reader.forceFlush()
    const metrics = exporter.getMetrics()[0]!.scopeMetrics[0]!.metrics
    const value = (name: string, attributes: object) =>
      metrics
        .find(({ descriptor }) => descriptor.name === name)
        ?.dataPoints.find((point) => Object.entries(attributes).every(([key, each]) => point.attributes[key] === each))
        ?.value
    assert.deepEqual(
      new Set(metrics.map(({ descriptor }) => descriptor.name)),
      new Set(metricDefinitions.map(({ name }) => name)),
    )
    assert.equal(value('enmesh.publish.transactions', { 'enmesh.node': 'node1' }), 1)
    assert.equal(value('enmesh.apply.transactions', { 'enmesh.node': 'node2' }), 1)
    assert.equal(value('enmesh.apply.subscriptions', { 'enmesh.node': 'node1', 'enmesh.state': 'live' }), 1)
    assert.equal(callbacks.size, 2)
    await cluster.close()
    assert.equal(callbacks.size, 0)
  })

  it('without the required methods is rejected', async () => {
    const options = { meter: { createObservableCounter() {} } as unknown as Meter }
    await assert.rejects(startCluster(1, { network: new MemoryNetwork(), options }), {
      code: 'invalid_option',
      message: /meter.createObservableGauge/,
    })
  })
})

describe('progress', () => {
  it('of opening is reported to the listeners of the options, step by step', async (t) => {
    const reported: Progress[] = []
    await two(t, { options: { listeners: { progress: (progress) => void reported.push(progress) } } })
    const steps = reported.filter(({ task }) => task === 'open').slice(0, 4)
    assert.deepEqual(
      steps.map(({ step, done, total }) => [step, done, total]),
      [
        ['state', 0, 3],
        ['servers', 1, 3],
        ['subscriptions', 2, 3],
        ['subscriptions', 3, 3],
      ],
    )
    for (const on of [{ nothing: () => {} }, { progress: 'text' }])
      await assert.rejects(startCluster(1, { network: new MemoryNetwork(), options: { listeners: on as object } }), {
        code: 'invalid_option',
      })
  })

  it('of catching up reports the remaining transactions, and the end', async (t) => {
    const { one, two: other, cluster, network } = await two(t, { options: { maxBatch: 10 } })
    network.cut('node1', 'node2')
    for (let id = 0; id < 500; id++) await one.host.insert('dev', 'dog', { id })
    const reported: Progress[] = []
    other.cluster.on('progress', (progress) => void reported.push(progress))
    other.host.beforeApply = () => new Promise((resolve) => setTimeout(resolve, 25))
    network.heal()
    await cluster.converged()
    const ended = await other.cluster.events
      .once('progress', { signal: AbortSignal.timeout(2_000), where: ({ done, total }) => done === total })
      .catch(() => reported.at(-1)!)
    const [first] = reported
    assert.equal(first?.task, 'catch-up')
    assert.ok(first.done > 0 && first.done < first.total!, JSON.stringify(first))
    assert.ok(first.rate! > 0 && first.remaining! > 0, JSON.stringify(first))
    assert.equal(ended.done, ended.total)
    assert.ok(reported.every((each, index) => index === 0 || each.done >= reported[index - 1]!.done))
  })

  it('of configuring many tables counts tables', async (t) => {
    const { one, network } = await two(t, { subscribe: false })
    const tables = Array.from({ length: 250 }, (_, index) => ({ database: 'dev', table: `table${index}` }))
    for (const table of tables) await one.host.createTable({ ...table, primaryKey: 'id', attributes: ['id'] })
    network.slowLeaf('node1', 40)
    const reported: Progress[] = []
    one.cluster.on('progress', (progress) => void reported.push(progress))
    const subscriptions = tables.map((table) => ({ ...table, publish: true, subscribe: false }))
    await one.cluster.addNode({ node_name: 'node2', subscriptions })
    const streams = reported.filter(({ step }) => step === 'streams')
    assert.ok(streams.length >= 2, JSON.stringify(reported))
    for (const { task, node, total } of streams) assert.deepEqual([task, node, total], ['configure', 'node2', 250])
    assert.equal(streams.at(-1)!.done, 250)
  })

  it('is reported at most four times a second, and not for short work', async () => {
    const clock = new TestClock({ stopped: true })
    const reported: Progress[] = []
    const report = () =>
      new ProgressReport(clock, (progress) => void reported.push(progress), { task: 'configure', node: 'node2' })
    const quick = report()
    await clock.advance(200)
    quick.update(50, 100)
    quick.update(100, 100)
    assert.deepEqual(reported, [])
    const slow = report()
    for (let done = 0; done <= 100; done++) {
      slow.update(done, 100)
      await clock.advance(10)
    }
    assert.deepEqual(
      reported.map(({ done, rate, remaining }) => [done, rate, remaining]),
      [
        [25, 100, 0.75],
        [50, 100, 0.5],
        [75, 100, 0.25],
        [100, 100, 0],
      ],
    )
  })
})

describe('the log', () => {
  it('can be a pino logger', async (t) => {
    const lines: Record<string, unknown>[] = []
    const logger = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
    const { one, network } = await two(t, { options: { logger } })
    network.crash('node2')
    await one.cluster.removeNode({ node_name: 'node2' })
    const line = lines.find(({ msg }) => msg === 'removed node not reached')
    assert.deepEqual([line?.level, line?.peer], [40, 'node2'])
  })
})
