// The metrics for an OpenTelemetry meter: creates the instruments once and reads the values when the meter collects. The delay of
// transactions is recorded when they are applied.

import type { RemoteTable, RemoteTransaction } from '../host/host.ts'
import { wallTimeOf } from '../host/hybrid-clock.ts'
import { delayDefinition, type Metrics, type MetricValue, metricDefinitions, type TableStatus } from './metrics.ts'

/** The part of OpenTelemetry's `Meter` that this module uses. */
export interface Meter {
  createObservableCounter(name: string, options: InstrumentOptions): Instrument
  createObservableGauge(name: string, options: InstrumentOptions): Instrument
  createHistogram(name: string, options: HistogramOptions): Histogram
  // biome-ignore lint/suspicious/noExplicitAny: the type of the instruments belongs to the meter
  addBatchObservableCallback(callback: (result: any) => void, instruments: any[]): void
  // biome-ignore lint/suspicious/noExplicitAny: as above
  removeBatchObservableCallback(callback: (result: any) => void, instruments: any[]): void
}

type InstrumentOptions = { description: string; unit: string }
type HistogramOptions = InstrumentOptions & { advice: { explicitBucketBoundaries: number[] } }
type Attributes = Record<string, string>
type Instrument = object
type Histogram = { record(value: number, attributes: Attributes): void }
type Observations = { observe(instrument: Instrument, value: number, attributes: Attributes): void }

export type MetricSources = {
  /** Undefined: nothing is observed. */
  metrics(): Metrics | undefined
  tables(): readonly TableStatus[]
}

const tableAttributes = (node: string, { node: peer, database, table }: RemoteTable): Attributes => ({
  'enmesh.node': node,
  'enmesh.peer': peer,
  'enmesh.database': database,
  'enmesh.table': table,
})

/** Observes until the returned function is called. `node` becomes the attribute `enmesh.node` of each observation. */
export function observeMetrics(meter: Meter, node: string, { metrics, tables }: MetricSources): () => void {
  const observed = metricDefinitions.flatMap((definition) => {
    const { name, kind, description, unit } = definition
    if (kind === 'histogram') return []
    const create = kind === 'counter' ? 'createObservableCounter' : 'createObservableGauge'
    return [{ definition, instrument: meter[create](name, { description, unit }) }]
  })
  const instruments = observed.map(({ instrument }) => instrument)
  const collect = (result: Observations) => {
    const now = metrics()
    if (!now) return
    const statuses = tables().map((status) => ({ status, attributes: tableAttributes(node, status.source) }))
    for (const { definition, instrument } of observed) {
      const observe = (value: MetricValue, attributes: Attributes) => {
        if (typeof value === 'number') result.observe(instrument, value, attributes)
        else
          for (const [state, count] of Object.entries(value))
            result.observe(instrument, count, { ...attributes, 'enmesh.state': state })
      }
      if (definition.scope === 'node') observe(definition.read(now), { 'enmesh.node': node })
      else if (definition.scope === 'table')
        for (const { status, attributes } of statuses) observe(definition.read(status), attributes)
    }
  }
  meter.addBatchObservableCallback(collect, instruments)
  return () => meter.removeBatchObservableCallback(collect, instruments)
}

export type DelayRecorderOptions = {
  meter: Meter
  node: string
  /** ms since 1970. */
  now(): number
  /** ms by which the local clock is ahead of that of a node; undefined: not known. */
  aheadOf(node: string): number | undefined
}

/** Heartbeats, from which the difference of clocks is known, take some time: a smaller difference may be that. */
const CLOCK_TOLERANCE_MS = 1_000

/** Records how long transactions took from their commit at their origin to the one here. A negative delay counts as 0. */
export function createDelayRecorder({ meter, node, now, aheadOf }: DelayRecorderOptions) {
  const { name, description, unit, boundaries } = delayDefinition
  const advice = { explicitBucketBoundaries: [...boundaries] }
  const histogram = meter.createHistogram(name, { description, unit, advice })
  /** The present time by the clock of that node. */
  const timeAt = (origin: string) => {
    const ahead = aheadOf(origin) ?? 0
    return now() - (Math.abs(ahead) > CLOCK_TOLERANCE_MS ? ahead : 0)
  }
  return (source: RemoteTable, transactions: readonly RemoteTransaction[]): void => {
    const attributes = { 'enmesh.node': node, 'enmesh.peer': source.node }
    // Those of one origin follow each other, as a rule.
    let [origin, time] = ['', 0]
    for (const transaction of transactions) {
      if (transaction.origin.node !== origin) {
        origin = transaction.origin.node
        time = timeAt(origin)
      }
      histogram.record(Math.max(0, time - wallTimeOf(transaction.timestamp)) / 1_000, attributes)
    }
  }
}
