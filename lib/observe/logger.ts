// The logger port: any object with these four methods of pino. The default logs nothing.

export interface Logger {
  debug(details: object, message: string): void
  info(details: object, message: string): void
  warn(details: object, message: string): void
  error(details: object, message: string): void
}

/** A logger that never throws or rejects: a fault in it must not change what is logged. */
export function safeLogger(logger: Logger): Logger {
  const method = (level: keyof Logger) => (details: object, message: string) => {
    try {
      const result: unknown = logger[level](details, message)
      if (typeof (result as PromiseLike<unknown> | undefined)?.then === 'function')
        Promise.resolve(result).catch(() => {})
    } catch {
      // There is nothing else to report it to.
    }
  }
  return { debug: method('debug'), info: method('info'), warn: method('warn'), error: method('error') }
}

const noop = () => {}
export const silentLogger: Logger = { debug: noop, info: noop, warn: noop, error: noop }
