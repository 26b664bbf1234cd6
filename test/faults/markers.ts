// The change markers of a node. Each is appended to a file before it is stored, so that a killed process loses none.

import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { readLines } from './lines.ts'
import type { Marker } from './writes.ts'

const fileIn = (directory: string) => join(directory, 'markers.jsonl')

export const recordMarker = (directory: string, marker: Marker): void =>
  appendFileSync(fileIn(directory), `${JSON.stringify(marker)}\n`)

export const readMarkers = (directory: string): Promise<Marker[]> => readLines(fileIn(directory))
