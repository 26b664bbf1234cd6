// The logger of one manager: adds the name of the local node to every line.

import type { Logger } from './logger.ts'

export class NodeLogger implements Logger {
  readonly #logger: Logger
  /** The field `localNode` of every line; '' until the configuration file was read. */
  localNode = ''

  constructor(logger: Logger) {
    this.#logger = logger
  }

  debug(details: object, message: string): void {
    this.#logger.debug({ localNode: this.localNode, ...details }, message)
  }

  info(details: object, message: string): void {
    this.#logger.info({ localNode: this.localNode, ...details }, message)
  }

  warn(details: object, message: string): void {
    this.#logger.warn({ localNode: this.localNode, ...details }, message)
  }

  error(details: object, message: string): void {
    this.#logger.error({ localNode: this.localNode, ...details }, message)
  }
}
