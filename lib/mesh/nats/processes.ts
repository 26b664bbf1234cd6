// Finds and ends the nats-server processes of a configuration file, as a killed host leaves them behind.

import { execFile } from 'node:child_process'
import { readdir, readFile, stat } from 'node:fs/promises'
import { promisify } from 'node:util'
import { delay, systemTimers } from '../../util/timers.ts'

/** Command line of a server; it identifies the server's process. */
export const serverArguments = (configFile: string): string[] => ['-c', configFile]

/** False for a zombie without other threads: it holds no ports and no files. Of a process that ends, the first thread may be gone before the others. */
async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return !isEnded(status)
}

/** `status`: of `/proc/<pid>/stat`; the state is its third field, the number of threads its twentieth. */
export function isEnded(status: string): boolean {
  const fields = status.slice(status.lastIndexOf(')') + 2).split(' ')
  return /^[ZX]$/.test(fields[0]!) && Number(fields[17]) <= 1
}

/** True when the process has ended, false when it has not within `timeout` ms. */
async function waitForExit(pid: number, timeout: number): Promise<boolean> {
  const end = systemTimers.elapsed() + timeout
  while (await isAlive(pid)) {
    if (systemTimers.elapsed() > end) return false
    await delay(10)
  }
  return true
}

/** True when the process has ended: SIGTERM first, SIGKILL `timeout` ms later. */
export async function terminate(pid: number, timeout: number): Promise<boolean> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    try {
      process.kill(pid, signal)
    } catch {
      // It has just ended, or belongs to another user.
    }
    if (await waitForExit(pid, timeout)) return true
  }
  return false
}

/**
 * Process ids of the servers of this configuration file, independent of the node's name and ports. Pid files are not reliable: they
 * outlive their process, and a failed start overwrites the file of a process that still runs.
 */
export async function serversOf(configFile: string): Promise<number[]> {
  const file = await fileIdentity(configFile)
  if (!file) return []
  const pids = await readdir('/proc').catch(() => undefined)
  if (!pids) return serversFromPs(configFile)
  const found = await Promise.all(
    pids.filter((name) => /^\d+$/.test(name)).map(async (pid) => ((await runsConfig(pid, file)) ? [Number(pid)] : [])),
  )
  return found.flat()
}

/** Device and inode: the same for every path to the file, also inside a container. */
async function fileIdentity(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined)
  return found && `${found.dev}:${found.ino}`
}

async function runsConfig(pid: string, file: string): Promise<boolean> {
  const [, option, path] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
  return option === '-c' && !!path?.startsWith('/') && (await fileIdentity(`/proc/${pid}/root${path}`)) === file
}

/** For systems without /proc. */
async function serversFromPs(configFile: string): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-axww', '-o', 'pid=,command='])
  const ending = ` ${serverArguments(configFile).join(' ')}`
  const lines = stdout.split('\n').filter((line) => line.trimEnd().endsWith(ending))
  return lines.map((line) => Number.parseInt(line, 10))
}
