// Processor time and memory of processes, from /proc on Linux.

import { readFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'

/** Clock ticks a second in `/proc`; the same on every Linux. */
const TICKS_PER_SECOND = 100

/** Seconds of processor time that a process has used. */
async function usedBy(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  // The name of the process ends at the last bracket; it may contain brackets and blanks.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Resident memory of a process in MB. */
export async function residentOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) / 1_024
}

const sum = (values: readonly number[]) => values.reduce((total, each) => total + each, 0)

/** Seconds of processor time that these processes have used. */
export const usedByAll = async (pids: readonly number[]) => sum(await Promise.all(pids.map(usedBy)))

export const residentOfAll = async (pids: readonly number[]) => sum(await Promise.all(pids.map(residentOf)))

/** Percent of one core that each of these groups of processes uses in the next `ms`. */
export async function sharesOf(groups: readonly (readonly number[])[], ms: number): Promise<number[]> {
  const used = () => Promise.all(groups.map(usedByAll))
  const [before, started] = [await used(), performance.now()]
  await delay(ms)
  const after = await used()
  const seconds = (performance.now() - started) / 1_000
  return after.map((each, index) => (100 * (each - before[index]!)) / seconds)
}
