// The metrics for an OpenTelemetry meter: creates the instruments once and reads the values when the meter collects.

import { type Metrics, metricDefinitions } from './metrics.ts'

/** The part of OpenTelemetry's `Meter` that this module uses. */
export interface Meter {
  createObservableCounter(name: string, options: InstrumentOptions): Instrument
  createObservableGauge(name: string, options: InstrumentOptions): Instrument
  // biome-ignore lint/suspicious/noExplicitAny: the type of the instruments belongs to the meter
  addBatchObservableCallback(callback: (result: any) => void, instruments: any[]): void
  // biome-ignore lint/suspicious/noExplicitAny: as above
  removeBatchObservableCallback(callback: (result: any) => void, instruments: any[]): void
}

type InstrumentOptions = { description: string; unit: string }
type Instrument = object
type Observations = {
  observe(instrument: Instrument, value: number, attributes: Record<string, string>): void
}

/** Observes until the returned function is called. `node` becomes the attribute `enmesh.node` of each observation. */
export function observeMetrics(meter: Meter, node: string, metrics: () => Metrics | undefined): () => void {
  const instruments = metricDefinitions.map(({ name, kind, unit, description }) =>
    kind === 'counter'
      ? meter.createObservableCounter(name, { description, unit })
      : meter.createObservableGauge(name, { description, unit }),
  )
  const collect = (result: Observations) => {
    const now = metrics()
    if (!now) return
    for (const [index, { read }] of metricDefinitions.entries()) {
      const value = read(now)
      const instrument = instruments[index]!
      if (typeof value === 'number') result.observe(instrument, value, { 'enmesh.node': node })
      else
        for (const [state, count] of Object.entries(value))
          result.observe(instrument, count, { 'enmesh.node': node, 'enmesh.state': state })
    }
  }
  meter.addBatchObservableCallback(collect, instruments)
  return () => meter.removeBatchObservableCallback(collect, instruments)
}
