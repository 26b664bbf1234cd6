// Links between hubs through proxies that can delay all traffic.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { programArguments } from '../support/program.ts'
import type { Address, Command, Place } from './network.ts'

/** Arguments of the proxy process: the addresses that it listens on for each node. `callers`: the address that it connects from for each node. */
export type ProxySetup = { proxies: { listen: Address; target: Address }[]; callers: Record<string, string> }

export class DelayedLinks {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  /** Resolves when every node can be reached at the address of its route. */
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
      throw new Error('the proxies exited before they were ready')
    })
    ended.catch(() => {})
    await Promise.race([once(child, 'message'), ended])
    return new DelayedLinks(child)
  }

  /** Delays all traffic in each direction from now on, in ms. */
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
