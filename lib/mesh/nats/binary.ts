// Finding a nats-server to run: the option, the environment, the PATH; and knowing its version.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { clusterError, clusterErrorFrom, reasonOf } from '../../errors.ts'

export type Binary = { path: string; version: readonly [major: number, minor: number, patch: number] }

const OLDEST = [2, 9] as const
const run = promisify(execFile)

export const atLeast = ({ version }: Binary, major: number, minor: number): boolean =>
  version[0] > major || (version[0] === major && version[1] >= minor)

/** The binary to use and its version. Rejects nats_server_missing. */
export async function findBinary(option?: string): Promise<Binary> {
  const path = option ?? (process.env.NATS_SERVER || 'nats-server')
  let text: string
  try {
    text = (await run(path, ['--version'], { timeout: 10_000 })).stdout
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw clusterErrorFrom(error, 'nats_server_missing', missing ? `'${path}' was not found` : reasonOf(error))
  }
  const match = /v?(\d+)\.(\d+)\.(\d+)/.exec(text)
  if (!match) throw clusterError('nats_server_missing', `'${path} --version' answered '${text.trim()}'`)
  const binary: Binary = { path, version: [Number(match[1]), Number(match[2]), Number(match[3])] }
  if (!atLeast(binary, ...OLDEST))
    throw clusterError('nats_server_missing', `'${path}' is ${match[0]}, older than ${OLDEST.join('.')}`)
  return binary
}
