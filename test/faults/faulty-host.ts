// A host with the faults of a database: calls that hang for a while, and commits that are reported as rejected.

import type { Host } from '../../lib/host/host.ts'

export type DatabaseFault = 'hang' | 'reject-after-commit' | 'reject'

const WRITES: ReadonlySet<string> = new Set(['apply', 'deleteCheckpoint', 'confirmPublished'])
/** Share of the calls that a rejecting database rejects. */
const REJECTED = 0.5

export class DatabaseFaults {
  #fault: DatabaseFault | undefined
  #hanging: Promise<void> = Promise.resolve()
  #release = () => {}

  /** Begins a fault, or ends the current one. */
  set(fault: DatabaseFault | undefined): void {
    this.#release()
    this.#fault = fault
    if (fault !== 'hang') return
    this.#hanging = new Promise((resolve) => {
      this.#release = resolve
    })
  }

  async before(method: string): Promise<void> {
    if (this.#fault === 'hang') await this.#hanging
    if (this.#fault === 'reject' && Math.random() < REJECTED) throw new Error(`${method}: the database is busy`)
  }

  after(method: string): void {
    if (this.#fault === 'reject-after-commit' && WRITES.has(method) && Math.random() < REJECTED)
      throw new Error(`${method}: the connection to the database was lost`)
  }
}

/** The same host with these faults in every asynchronous method. */
export function faultyHost(host: Host, faults: DatabaseFaults): Host {
  return new Proxy(host, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      const method = value.bind(target)
      if (name === 'info' || name === 'lastTimestamp') return method
      if (name === 'readOutbox')
        return async function* readOutbox(...args: unknown[]) {
          for await (const transaction of method(...args)) {
            await faults.before(name)
            yield transaction
          }
        }
      return async (...args: unknown[]) => {
        await faults.before(String(name))
        const result = await method(...args)
        faults.after(String(name))
        return result
      }
    },
  })
}
