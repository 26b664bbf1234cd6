// A node of a fault run as the run sees it: its process, its two servers, and what they are asked and told.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { eventually, isRunning, type NodeFiles, type ServerKind, serverPid, stopped } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'
import type { FromNode, NodeSetup, Request, ToNode } from './messages.ts'
import type { Command } from './network.ts'

const START_TIMEOUT_MS = 30_000
const ANSWER_TIMEOUT_MS = 20_000
const CLOSE_TIMEOUT_MS = 10_000
const END_ROUNDS = 250

export type Part = ServerKind | 'host'
export type Listener = (node: NodeHandle, message: FromNode) => void

export type HandleOptions = NodeFiles & {
  /** Folder of the leaf's store. */
  store: string
  seed: number
  maxClockDrift: number
  command: Command
  onMessage: Listener
}

export class NodeHandle {
  readonly #options: HandleOptions
  readonly #answers = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  #child: ChildProcess | undefined
  #starts = 0
  #requests = 0
  /** Its end is our doing. */
  #ending = false
  #ended = false
  #writing = false

  constructor(options: HandleOptions) {
    this.#options = options
  }

  get name(): string {
    return this.#options.name
  }

  get directory(): string {
    return this.#options.directory
  }

  get store(): string {
    return this.#options.store
  }

  get logFile(): string {
    return join(this.#options.directory, 'log')
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Resolves when its manager is open; it goes on writing if it did before. */
  async start(): Promise<void> {
    if (this.#ended) throw new Error(`${this.name} is at its end`)
    const { name, directory, configFile, seed, maxClockDrift, command, onMessage } = this.#options
    const setup: NodeSetup = { name, start: ++this.#starts, directory, configFile, seed, maxClockDrift }
    const [file, ...args] = command(
      process.execPath,
      ...programArguments('faults/node-process.ts'),
      JSON.stringify(setup),
    )
    const log = openSync(this.logFile, 'a')
    // A group of its own, so that a terminal's Ctrl-C reaches only the run, which ends it in order.
    const child = spawn(file, args, { stdio: ['ignore', log, log, 'ipc'], detached: true })
    closeSync(log)
    this.#child = child
    this.#ending = false
    const ready = new Promise<void>((resolve, reject) => {
      child.on('message', (message: FromNode) => {
        if (message.type === 'ready') resolve()
        else if (message.type === 'answer') this.#onAnswer(message)
        else onMessage(this, message)
      })
      child.once('error', reject)
      child.once('exit', (code, signal) => {
        const text = `the process of ${name} ended by itself: ${signal ?? `exit code ${code}`}`
        if (!this.#ending) onMessage(this, { type: 'violation', text })
        for (const { reject } of this.#answers.values()) reject(new Error(text))
        this.#answers.clear()
        reject(new Error(text))
      })
    })
    const late = delay(START_TIMEOUT_MS, undefined, { ref: false }).then(() => {
      throw new Error(`${name} was not open within ${START_TIMEOUT_MS} ms`)
    })
    await Promise.race([ready, late])
    if (this.#writing) await this.write(true)
  }

  async write(on: boolean): Promise<void> {
    this.#writing = on
    await this.ask({ type: 'write', on })
  }

  async ask<T>(request: Request, timeout = ANSWER_TIMEOUT_MS): Promise<T> {
    const child = this.#child
    if (!child || !this.running) throw new Error(`${this.name} does not run`)
    const number = ++this.#requests
    const answer = new Promise<unknown>((resolve, reject) => this.#answers.set(number, { resolve, reject }))
    const timer = setTimeout(() => {
      this.#answers.get(number)?.reject(new Error(`${this.name} did not answer '${request.type}' within ${timeout} ms`))
    }, timeout)
    try {
      child.send({ ...request, number } satisfies ToNode)
      return (await answer) as T
    } finally {
      clearTimeout(timer)
      this.#answers.delete(number)
    }
  }

  #onAnswer({ number, value, error }: FromNode & { type: 'answer' }): void {
    const waiting = this.#answers.get(number)
    if (error === undefined) waiting?.resolve(value)
    else waiting?.reject(new Error(`${this.name}: ${error}`))
  }

  async pid(part: Part): Promise<number> {
    if (part === 'host') return this.#child!.pid!
    return eventually(`the ${part} of ${this.name} runs`, () => serverPid(this.#options, part))
  }

  /** SIGKILL; of a server, resolves when another runs in its place. */
  async kill(part: Part): Promise<void> {
    if (part === 'host') {
      this.#ending = true
      const exited = once(this.#child!, 'exit')
      this.#child!.kill('SIGKILL')
      await exited
    } else {
      await this.replaced(part, await this.killServer(part))
    }
  }

  /** SIGKILL; resolves with its process id when it is gone. */
  async killServer(server: ServerKind): Promise<number> {
    const pid = await this.pid(server)
    process.kill(pid, 'SIGKILL')
    await eventually(`the ${server} of ${this.name} is gone`, async () => !(await isRunning(pid)))
    return pid
  }

  /** Both its servers and its process at once. */
  async killAll(): Promise<void> {
    const servers = [await serverPid(this.#options, 'hub'), await serverPid(this.#options, 'leaf')]
    this.#ending = true
    const exited = once(this.#child!, 'exit')
    this.#child!.kill('SIGKILL')
    for (const pid of servers) if (pid) process.kill(pid, 'SIGKILL')
    await exited
  }

  /** Another process than `previous` runs as this server. */
  async replaced(server: ServerKind, previous: number): Promise<void> {
    await eventually(
      `the ${server} of ${this.name} is replaced`,
      async () => {
        const pid = await serverPid(this.#options, server)
        return pid !== undefined && pid !== previous
      },
      30_000,
    )
  }

  /** SIGSTOP; resolves with what wakes it again, when it or what runs in its place does. */
  async pause(part: Part): Promise<() => Promise<void>> {
    const pid = await this.pid(part)
    process.kill(pid, 'SIGSTOP')
    await stopped(pid)
    return async () => {
      if (await isRunning(pid)) process.kill(pid, 'SIGCONT')
      else if (part !== 'host') await this.replaced(part, pid)
    }
  }

  /** SIGTERM; rejects when that does not end it, and its servers, cleanly within seconds. */
  async close(): Promise<void> {
    if (!this.running) return
    const child = this.#child!
    this.#ending = true
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    const late = delay(CLOSE_TIMEOUT_MS, undefined, { ref: false })
    const result = await Promise.race([exited, late])
    if (!result) throw new Error(`${this.name} did not close within ${CLOSE_TIMEOUT_MS} ms`)
    if (result[0] !== 0) throw new Error(`${this.name} closed with ${result[1] ?? `exit code ${result[0]}`}`)
    for (const server of ['hub', 'leaf'] as const)
      if (await serverPid(this.#options, server)) throw new Error(`${this.name} left its ${server} running`)
  }

  /** Whatever happened before: nothing of this node runs afterwards, and it cannot be started again. */
  async end(): Promise<void> {
    this.#ending = true
    this.#ended = true
    // By the folder that is on all their command lines: a server that was just being started has no pid file yet.
    for (let round = 0; round < END_ROUNDS; round++) {
      const pids = await processesOf(this.directory)
      if (pids.length === 0) return
      for (const pid of pids) kill(pid)
      await delay(20)
    }
    throw new Error(`something of ${this.name} could not be ended`)
  }
}

async function processesOf(directory: string): Promise<number[]> {
  const found: number[] = []
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (command.includes(`${directory}/`)) found.push(pid)
  }
  return found
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It is gone already.
  }
}
