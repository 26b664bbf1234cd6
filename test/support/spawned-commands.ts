// Commands to a node in a separate process (memory-node.ts).

import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { ClusterManager } from '../../lib/index.ts'

/** `clock`: ms by which the wall time of the process is ahead from now on. */
export type NodeCommand =
  | { command: 'clock'; ms: number }
  | { command: 'insert'; table: string; record: Record<string, unknown> }
  | { command: 'rows'; table: string }
  | { command: 'restamp' }
  | { command: 'status' }

export type NodeState = { clock: ClusterManager['clock']; quarantined: number }

/** Returns a function that runs one command at a time. It rejects with the error of the command. */
export function commandsTo(child: ChildProcess): <T>(request: NodeCommand) => Promise<T> {
  const waiting: ((line: string) => void)[] = []
  createInterface({ input: child.stdout! }).on('line', (line) => waiting.shift()?.(line))
  return (request) =>
    new Promise((resolve, reject) => {
      waiting.push((line) => {
        const { result, error } = JSON.parse(line)
        if (error === undefined) resolve(result)
        else reject(new Error(error))
      })
      child.stdin!.write(`${JSON.stringify(request)}\n`)
    })
}
