// Finds the nats-server binary (option, environment, PATH) and its version.

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { clusterError, clusterErrorFrom, reasonOf } from '../../errors.ts'
import { isAtLeast, type Version } from './versions.ts'

export type Binary = { path: string; version: Version }

export const OLDEST_SUPPORTED: Version = [2, 9, 0]
const run = promisify(execFile)

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
  if (!isAtLeast(binary.version, OLDEST_SUPPORTED))
    throw clusterError('nats_server_missing', `'${path}' is ${match[0]}, older than 2.9`)
  return binary
}
