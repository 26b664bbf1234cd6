// Gaps, stalls and quarantined transactions that a node's process reports. Each is appended to a file at once, so that a killed process
// loses no report.

import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ClusterEventSource, GapReason, RemoteTable } from '../../lib/index.ts'
import { readLines } from './lines.ts'
import { firstName } from './names.ts'

/** `after`: id of the last journal entry at that time. `source` has the first name of the node. */
export type Incident = { after: string; source: RemoteTable } & (
  | { event: 'gap'; from?: number; to?: number; lost?: number; reason: GapReason }
  | { event: 'quarantined'; epoch: string; index: number; count: number; sequence: number; error: string }
  | { event: 'stalled'; sequence: number; index?: number; error: string }
)

export const incidentsFile = (directory: string) => join(directory, 'incidents.jsonl')

export function recordIncidents(directory: string, events: ClusterEventSource, lastEntry: () => string): void {
  const append = (incident: Incident) => {
    const source = { ...incident.source, node: firstName(incident.source.node) }
    appendFileSync(incidentsFile(directory), `${JSON.stringify({ ...incident, source })}\n`)
  }
  events.on('replication:gap', (gap) => append({ ...gap, event: 'gap', after: lastEntry() }))
  events.on('replication:quarantined', (fault) => append({ ...fault, event: 'quarantined', after: lastEntry() }))
  events.on('replication:stalled', (stall) => append({ ...stall, event: 'stalled', after: lastEntry() }))
}

export const readIncidents = (directory: string): Promise<Incident[]> => readLines(incidentsFile(directory))
