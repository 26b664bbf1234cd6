// The example of metrics in the README: Prometheus reads them from the process, beside probes. Tests compile and run it.

import { createServer } from 'node:http'
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { ClusterManager, type ClusterOptions } from '../../lib/index.ts'

export async function openWithPrometheus(options: ClusterOptions, port = 9464) {
  const exporter = new PrometheusExporter({ preventServerStart: true, withoutTargetInfo: true })
  const provider = new MeterProvider({ readers: [exporter] })
  const cluster = await ClusterManager.open({ ...options, meter: provider.getMeter('enmesh') })
  const server = createServer((request, response) => {
    const health = cluster.health()
    if (request.url === '/metrics') exporter.getMetricsRequestHandler(request, response)
    else if (request.url === '/readyz') response.writeHead(health.ready ? 200 : 503).end(JSON.stringify(health))
    else response.writeHead(404).end()
  })
  server.listen(port, '127.0.0.1')
  const close = async () => {
    server.close()
    await cluster.close()
    await provider.shutdown()
  }
  return { cluster, server, close }
}
