// The order in which a manager opens and closes its parts, also when one of them fails.

import { ClusterError, clusterErrorFrom, reasonOf } from '../errors.ts'
import { ManifestStore } from '../manifest/store.ts'
import type { Logger } from '../observe/logger.ts'
import { type EndStep, runSteps } from '../util/run-steps.ts'
import { Locks } from './locks.ts'
import { type CheckedOptions, type ClusterOptions, checkOptions } from './options.ts'
import type { Service } from './service.ts'

/** ms for each part, after which the next one is closed. */
const CLOSE_TIMEOUT_MS = 10_000

const end = (logger: Logger, steps: readonly EndStep[]): Promise<void> =>
  runSteps(steps, (step, error) => logger.error({ step, reason: error.message }, 'closing failed in part'))

/** What is open before a manager exists. */
export type OpenParts = { options: CheckedOptions; store: ManifestStore; locks: Locks }

/** Locks and reads the configuration file, then creates and starts the manager. After a failure nothing is left running. */
export async function openManager<Manager extends { close(): Promise<void> }>(
  options: ClusterOptions,
  create: (parts: OpenParts) => Manager,
  start: (manager: Manager) => Promise<void>,
): Promise<Manager> {
  const checked = checkOptions(options)
  const { logger } = checked
  const locks = await Locks.open(checked)
  let store: ManifestStore | undefined
  let manager: Manager | undefined
  try {
    store = await ManifestStore.open(checked.configFile, { logger })
    logger.localNode = store.manifest.nodeName
    if (store.manifest.enabled) await locks.lockDirectories(store.settings)
    manager = create({ options: checked, store, locks })
    await start(manager)
    return manager
  } catch (error) {
    // Errors while closing are logged only: the first error is the cause.
    await (manager
      ? manager.close()
      : end(logger, [
          ['closing the file', () => store?.close(), CLOSE_TIMEOUT_MS],
          ['releasing the locks', () => locks.release(), CLOSE_TIMEOUT_MS],
        ])
    ).catch(() => {})
    throw error instanceof ClusterError ? error : clusterErrorFrom(error, 'server_failed', 'cluster', reasonOf(error))
  }
}

export type PartsToClose = Omit<OpenParts, 'options'> & {
  service: Pick<Service, 'close'> | undefined
  stopMetering: (() => void) | undefined
  endHostCalls: () => unknown
}

/** Closes every part, also after one that fails. Rejects internal then. */
export async function closeParts(
  logger: Logger,
  { store, locks, service, stopMetering, endHostCalls }: PartsToClose,
): Promise<void> {
  try {
    await end(logger, [
      ['ending the meter', () => stopMetering?.(), CLOSE_TIMEOUT_MS],
      ['closing the file', () => store.close(), CLOSE_TIMEOUT_MS],
      // Its own steps are limited.
      ['closing the service', () => service?.close()],
      ['ending calls of the host', endHostCalls, CLOSE_TIMEOUT_MS],
      ['releasing the locks', () => locks.release(), CLOSE_TIMEOUT_MS],
    ])
  } catch (error) {
    throw clusterErrorFrom(error, 'internal', reasonOf(error))
  }
}
