// Which local transactions were committed without being recorded, as the host knows it; for a host without an outbox, as a file in the
// directory `clustering` says: it exists while no process runs, after one that has published everything.

import { createHash, randomUUID } from 'node:crypto'
import { mkdir, open, readFile, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { reasonOf } from '../errors.ts'
import type { Host, TableName } from '../host/host.ts'
import { createOutbox } from '../host/outbox.ts'
import type { Settings } from '../manifest/settings.ts'
import type { Logger } from '../observe/logger.ts'
import { everythingRecorded, type UnrecordedCommits } from '../replication/publish/unrecorded-commits.ts'
import { syncFile, writeFileAtomic } from '../util/atomic-file.ts'
import { stateDirectory } from './locks.ts'

type Options = { host: Host; configFile: string; logger: Logger }

const pathOf = (configFile: string, settings: Settings) => join(stateDirectory(configFile, settings), 'recorded')

/** Call it while clustering is disabled, when the host has committed. Never rejects. */
export async function noteUnrecorded({ host, configFile, logger }: Options, settings: Settings): Promise<void> {
  if (createOutbox(host).isDurable) return
  try {
    await removeFile(pathOf(configFile, settings))
  } catch (error) {
    logger.warn({ reason: reasonOf(error) }, 'cannot note that transactions are not published')
  }
}

/** Rejects as file operations do. */
export async function openUnrecordedCommits(
  { host, configFile, logger }: Options,
  settings: Settings,
): Promise<UnrecordedCommits> {
  if (!createOutbox(host).isDurable) return openRun(pathOf(configFile, settings), logger)
  if (!host.lastUnrecorded) return everythingRecorded
  const markOf = async ({ database, table }: TableName) => {
    const last = await host.lastUnrecorded!({ database, table })
    return last === undefined ? undefined : createHash('sha256').update(last).digest('hex').slice(0, 16)
  }
  return { ...everythingRecorded, markOf, isCheckDue: async (table) => (await markOf(table)) !== undefined }
}

/** Of a host without an outbox. */
async function openRun(path: string, logger: Logger): Promise<UnrecordedCommits> {
  const known = await readFile(path, 'utf8').catch(() => '')
  const isKnown = /^[0-9a-f]{16}$/.test(known)
  const mark = isKnown ? known : randomUUID().replaceAll('-', '').slice(0, 16)
  await removeFile(path)
  return {
    markOf: async () => mark,
    isCheckDue: async () => !isKnown,
    onClosed: async (isComplete) => {
      if (!isComplete) return
      try {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 })
        await writeFileAtomic(path, mark)
      } catch (error) {
        // Then the next process begins new epochs.
        logger.warn({ reason: reasonOf(error) }, 'cannot note that all transactions are published')
      }
    },
  }
}

/** After a power failure too the file is gone. */
async function removeFile(path: string): Promise<void> {
  await rm(path, { force: true })
  const directory = await open(dirname(path)).catch(() => undefined)
  if (!directory) return
  await syncFile(directory).finally(() => directory.close())
}
