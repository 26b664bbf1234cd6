// The example of the status page in the README. Tests compile and run it.

import { createServer } from 'node:http'
import type { ClusterManager } from '../../lib/index.ts'
import { statusPage } from '../../lib/status-page.ts'

/** `isOperator`: how your database checks the header `authorization`. */
export function serveStatusPage(
  { view }: ClusterManager,
  port: number,
  isOperator: (header: string | undefined) => Promise<boolean>,
) {
  const page = statusPage(view, {
    path: '/status',
    async authorize({ headers }, response) {
      if (await isOperator(headers.authorization)) return true
      response.writeHead(401, { 'www-authenticate': 'Basic realm="status"' }).end()
      return false
    },
  })
  return createServer((request, response) => page(request, response)).listen(port, '127.0.0.1')
}
