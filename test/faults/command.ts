// Runs a program of the system.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const TIMEOUT = 60_000
const execute = promisify(execFile)

/** Rejects with the text of stderr when the program fails. */
export async function command(program: string, ...args: string[]): Promise<void> {
  try {
    await execute(program, args, { timeout: TIMEOUT })
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string }
    throw new Error(`${program} ${args.join(' ')}: ${stderr?.trim() || message}`)
  }
}
