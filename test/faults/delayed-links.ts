// The links between hubs when they go through proxies of ours, which can hold back all that passes.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { programArguments } from '../support/program.ts'
import type { Address, Command, Place } from './network.ts'

/** What the process is started with: where it listens, for whom. `callers`: from where it calls in the name of whom. */
export type ProxySetup = { proxies: { listen: Address; target: Address }[]; callers: Record<string, string> }

export class DelayedLinks {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Resolves when every node can be reached where its route says. */
  static async open(places: readonly Place[], commandOf: Command): Promise<DelayedLinks> {
    const setup: ProxySetup = {
      proxies: places.map(({ listen, route, ports }) => ({
        listen: route,
        target: { host: listen, port: ports.cluster },
      })),
      callers: Object.fromEntries(places.map(({ listen, route }) => [listen, route.host])),
    }
    const [file, ...args] = commandOf(
      process.execPath,
      ...programArguments('faults/proxy-process.ts'),
      JSON.stringify(setup),
    )
    const child = spawn(file, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], detached: true })
    const ended = once(child, 'exit').then(() => {
      throw new Error('the proxies ended before they were there')
    })
    ended.catch(() => {})
    await Promise.race([once(child, 'message'), ended])
    return new DelayedLinks(child)
  }

  /** From now on everything arrives this much later, in each direction. */
  delay(ms: number): void {
    if (this.#child.connected) this.#child.send(ms)
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }
}
