// The process of the TCP proxies in front of hubs. A message sets the delay of all traffic in ms.

import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { ProxySetup } from './delayed-links.ts'

/** Bytes that are buffered for one direction before the sender is paused. */
const MAX_HELD = 4 * 1024 * 1024

const { proxies, callers } = JSON.parse(process.argv[2]!) as ProxySetup
let delay = 0
process.on('message', (ms: number) => {
  delay = ms
})
process.on('disconnect', () => process.exit())

/** Keeps the order when the delay changes. */
function pass(from: Socket, to: Socket): void {
  let due = 0
  let held = 0
  const later = (work: () => void) => {
    due = Math.max(due, performance.now() + delay)
    setTimeout(work, due - performance.now())
  }
  from.on('data', (data) => {
    held += data.length
    if (held > MAX_HELD) from.pause()
    later(() => {
      held -= data.length
      if (held <= MAX_HELD) from.resume()
      to.write(data)
    })
  })
  from.on('error', () => {})
  from.on('close', () => later(() => to.destroy()))
}

for (const { listen, target } of proxies) {
  const server = createServer((caller) => {
    const localAddress = callers[caller.remoteAddress ?? '']
    const called = connect({ ...target, ...(localAddress === undefined ? {} : { localAddress }) })
    pass(caller, called)
    pass(called, caller)
  })
  server.listen(listen)
  await once(server, 'listening')
}
process.send!('listening')
