// Which processes run one of our configuration files: how what a killed host left behind is found, and proved to be ours.

import { execFile } from 'node:child_process'
import { readdir, readFile, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

/** How a server is started: nothing else has this command line. */
export const serverArguments = (configFile: string): string[] => ['-c', configFile]

/** A zombie has let go of its ports and files: it is gone. */
async function isAlive(pid: number): Promise<boolean> {
  try {
    process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return !/^\d+ \(.*\) [ZX]/s.test(status)
}

/** Waits until the process is gone; false when it is still there after `timeout` ms. */
export async function waitForExit(pid: number, timeout: number): Promise<boolean> {
  const end = performance.now() + timeout
  while (await isAlive(pid)) {
    if (performance.now() > end) return false
    await delay(10)
  }
  return true
}

/**
 * Process ids of the servers of this configuration file, whichever name the node had and whichever ports. A pid file would
 * not do: it outlives its process, and a start that failed overwrites it while the process before runs on.
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

/** Which file that is, by whatever path, in whatever container. */
async function fileIdentity(path: string): Promise<string | undefined> {
  const found = await stat(path).catch(() => undefined)
  return found && `${found.dev}:${found.ino}`
}

async function runsConfig(pid: string, file: string): Promise<boolean> {
  const [, option, path] = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0')
  return option === '-c' && !!path?.startsWith('/') && (await fileIdentity(`/proc/${pid}/root${path}`)) === file
}

/** Where there is no /proc. */
async function serversFromPs(configFile: string): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-axww', '-o', 'pid=,command='])
  const ending = ` ${serverArguments(configFile).join(' ')}`
  const lines = stdout.split('\n').filter((line) => line.trimEnd().endsWith(ending))
  return lines.map((line) => Number.parseInt(line, 10))
}
