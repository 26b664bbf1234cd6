// The clock control as the options of the manager want it.

import type { Negotiator } from '../peers/negotiator.ts'
import { ClockControl, type ClockControlOptions } from './clock-control.ts'
import type { Foundation, ServiceOptions } from './foundation.ts'

export function createClockControl(
  { options, store, clock, emit }: ServiceOptions,
  { mesh, registers }: Pick<Foundation, 'mesh' | 'registers'>,
  parts: Pick<ClockControlOptions, 'publish'> & { negotiator(): Pick<Negotiator, 'scheduleCompare'> },
): ClockControl {
  const { host, logger } = options
  return new ClockControl({
    node: store.manifest.nodeName,
    clock,
    timers: mesh.timers,
    host,
    emit,
    logger,
    publish: parts.publish,
    restampRevisions: (limit) => {
      const nodes = registers.restamp(limit)
      for (const node of new Set(nodes)) parts.negotiator().scheduleCompare(node)
      return nodes.length
    },
  })
}
