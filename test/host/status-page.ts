// The status page below `/status`, for super users.

import type { FastifyInstance } from 'fastify'
import type { StatusPage } from '../../lib/status-page.ts'
import { HostError } from './errors.ts'

export function addStatusPage(server: FastifyInstance, page: StatusPage): void {
  for (const path of ['/status', '/status/*'])
    server.get(path, async (request, reply) => {
      if (!request.caller?.superUser) throw new HostError(403, 'The status page is for super users')
      // It answers by itself, also with a stream that stays open.
      reply.hijack()
      page(request.raw, reply.raw)
    })
  // An open stream would hold up the end of the server.
  server.addHook('preClose', async () => page.close())
}
