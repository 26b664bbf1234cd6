// Probes for load balancers and process supervisors: `GET /healthz` answers 200 while the process runs, `GET /readyz` 503 while the
// node is not ready. Without credentials they say only that; a super user gets all conditions.

import type { FastifyInstance } from 'fastify'
import type { Health } from '../../lib/index.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route needs no credentials. */
    isProbe?: boolean
  }
}

export function addProbes(server: FastifyInstance, cluster: { health(): Health }): void {
  for (const path of ['/healthz', '/readyz'])
    server.get(path, { config: { isProbe: true } }, async ({ caller }, reply) => {
      const health = cluster.health()
      const { ready } = health
      const status = path === '/healthz' || ready ? 200 : 503
      return reply
        .code(status)
        .header('cache-control', 'no-store')
        .send(caller?.superUser ? health : { ready })
    })
}
