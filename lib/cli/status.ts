// `enmesh status URL`: one snapshot of the status page.

import { printableJson } from '../util/printable.ts'
import type { ExitCode, Flags, Io } from './io.ts'
import { fetchSnapshot } from './snapshots.ts'
import { isWell, snapshotText } from './status-text.ts'

const LIMIT = 20

export async function status(url: string, { json }: Flags, io: Io): Promise<ExitCode> {
  try {
    const snapshot = await fetchSnapshot(url, io)
    const color = io.terminal !== undefined && !io.environment.NO_COLOR
    const text = json
      ? printableJson(JSON.stringify(snapshot, undefined, 2))
      : snapshotText(snapshot, { columns: io.terminal?.columns, color, limit: LIMIT }).join('\n')
    io.print(`${text}\n`)
    return isWell(snapshot) ? 0 : 1
  } catch (error) {
    io.printError(`${(error as Error).message}\n`)
    return 2
  }
}
