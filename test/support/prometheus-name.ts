// The name of a metric in Prometheus, as OpenTelemetry's exporter makes it.

import type { MetricDefinition } from '../../lib/index.ts'

export const prometheusName = ({ name, kind }: MetricDefinition): string =>
  `${name.replaceAll('.', '_')}${kind === 'counter' ? '_total' : ''}`
