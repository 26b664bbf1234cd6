// Running a program of the system to its end.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const TIMEOUT_MS = 60_000
const execute = promisify(execFile)

/** Rejects with what it wrote to stderr when it fails. */
export async function command(program: string, ...args: string[]): Promise<void> {
  try {
    await execute(program, args, { timeout: TIMEOUT_MS })
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string }
    throw new Error(`${program} ${args.join(' ')}: ${stderr?.trim() || message}`)
  }
}
