// The handle that a run has of a node: its process, its two servers and the requests to them.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync } from 'node:fs'
import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import {
  clusteringOf,
  eventually,
  isRunning,
  type NodeFiles,
  type ServerKind,
  serverPid,
  stopped,
} from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'
import type { FromNode, NodeSetup, Request, ToNode } from './messages.ts'
import { nameAfter } from './names.ts'
import type { Command } from './network.ts'

const START_TIMEOUT = 30_000
const ANSWER_TIMEOUT = 20_000
const CLOSE_TIMEOUT = 10_000
const END_ROUNDS = 250

export type Part = ServerKind | 'host'
export type Listener = (node: NodeHandle, message: FromNode) => void

export type HandleOptions = NodeFiles & {
  /** Directory of the leaf's store. */
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
  #renames = 0
  #asked = 0
  /** The run ends the process on purpose. */
  #ending = false
  #ended = false
  #writing = false

  constructor(options: HandleOptions) {
    this.#options = options
  }

  /** The first name. */
  get name(): string {
    return this.#options.name
  }

  /** The present name in the cluster. */
  get clusterName(): string {
    return nameAfter(this.name, this.#renames)
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

  /** Resolves when the manager is open. Continues to write if the node wrote before. */
  async start(): Promise<void> {
    if (this.#ended) throw new Error(`${this.name} has ended`)
    const { name, directory, configFile, seed, maxClockDrift, command, onMessage } = this.#options
    const setup: NodeSetup = { name, start: ++this.#starts, directory, configFile, seed, maxClockDrift }
    const [file, ...args] = command(
      process.execPath,
      ...programArguments('faults/node-process.ts'),
      JSON.stringify(setup),
    )
    const log = openSync(this.logFile, 'a')
    // A separate process group: Ctrl-C reaches only the run, which ends its nodes in order.
    const child = spawn(file, args, { stdio: ['ignore', log, log, 'ipc'], detached: true })
    closeSync(log)
    this.#child = child
    this.#ending = false
    const ready = new Promise<void>((resolve, reject) => {
      child.on('message', (message: FromNode) => {
        if (message.tell === 'ready') resolve()
        else if (message.tell === 'answer') this.#answered(message)
        else onMessage(this, message)
      })
      child.once('error', reject)
      child.once('exit', (code, signal) => {
        const text = `the process of ${name} exited unexpectedly: ${signal ?? `exit code ${code}`}`
        if (!this.#ending) onMessage(this, { tell: 'violation', text })
        for (const { reject } of this.#answers.values()) reject(new Error(text))
        this.#answers.clear()
        reject(new Error(text))
      })
    })
    const late = delay(START_TIMEOUT, undefined, { ref: false }).then(() => {
      throw new Error(`${name} was not open within ${START_TIMEOUT} ms`)
    })
    await Promise.race([ready, late])
    if (this.#writing) await this.write(true)
  }

  /** Gives a node that does not run a new name in its configuration file. */
  async rename(): Promise<void> {
    const { configFile } = this.#options
    const text = await readFile(configFile, 'utf8')
    this.#renames++
    await writeFile(configFile, text.replace(/nodeName: .*/, `nodeName: ${this.clusterName}`))
  }

  /** Opens another manager in the directory of this node. Resolves with the code of its error, or `opened`. */
  async openTwice(): Promise<string> {
    const { directory, command, ports } = this.#options
    const configFile = join(directory, 'second.yaml')
    await writeFile(configFile, stringify({ clustering: clusteringOf(this.clusterName, ports) }))
    const [file, ...args] = command(process.execPath, ...programArguments('faults/second-process.ts'), configFile)
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const timer = setTimeout(() => child.kill('SIGKILL'), START_TIMEOUT)
    let text = ''
    for await (const part of child.stdout) text += part
    clearTimeout(timer)
    await rm(configFile)
    return text
  }

  async write(on: boolean): Promise<void> {
    this.#writing = on
    await this.ask({ ask: 'write', on })
  }

  async ask<T>(request: Request, timeout = ANSWER_TIMEOUT): Promise<T> {
    const child = this.#child
    if (!child || !this.running) throw new Error(`${this.name} is not running`)
    const number = ++this.#asked
    const answer = new Promise<unknown>((resolve, reject) => this.#answers.set(number, { resolve, reject }))
    const timer = setTimeout(() => {
      this.#answers.get(number)?.reject(new Error(`${this.name} did not answer '${request.ask}' within ${timeout} ms`))
    }, timeout)
    try {
      child.send({ ...request, number } satisfies ToNode)
      return (await answer) as T
    } finally {
      clearTimeout(timer)
      this.#answers.delete(number)
    }
  }

  #answered({ number, value, error }: FromNode & { tell: 'answer' }): void {
    const waiting = this.#answers.get(number)
    if (error === undefined) waiting?.resolve(value)
    else waiting?.reject(new Error(`${this.name}: ${error}`))
  }

  async pid(part: Part): Promise<number> {
    if (part === 'host') return this.#child!.pid!
    return eventually(`the ${part} of ${this.name} runs`, () => serverPid(this.#options, part))
  }

  /** Sends SIGKILL. For a server, resolves when its replacement runs. */
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

  /** Sends SIGKILL. Resolves with the process id when the process has ended. */
  async killServer(server: ServerKind): Promise<number> {
    const pid = await this.pid(server)
    process.kill(pid, 'SIGKILL')
    await eventually(`the ${server} of ${this.name} is gone`, async () => !(await isRunning(pid)))
    return pid
  }

  /** Kills both servers and the process at once. */
  async killAll(): Promise<void> {
    const servers = [await serverPid(this.#options, 'hub'), await serverPid(this.#options, 'leaf')]
    this.#ending = true
    const exited = once(this.#child!, 'exit')
    this.#child!.kill('SIGKILL')
    for (const pid of servers) if (pid) process.kill(pid, 'SIGKILL')
    await exited
  }

  /** Resolves when another process than `previous` runs as this server. */
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

  /** Sends SIGSTOP. Resolves with a function that continues the process and resolves when it, or its replacement, runs. */
  async pause(part: Part): Promise<() => Promise<void>> {
    const pid = await this.pid(part)
    process.kill(pid, 'SIGSTOP')
    await stopped(pid)
    return async () => {
      if (await isRunning(pid)) process.kill(pid, 'SIGCONT')
      else if (part !== 'host') await this.replaced(part, pid)
    }
  }

  /** Sends SIGTERM. Rejects when the process and its servers do not end cleanly within seconds. */
  async close(): Promise<void> {
    if (!this.running) return
    const child = this.#child!
    this.#ending = true
    const exited = once(child, 'exit')
    child.kill('SIGTERM')
    const late = delay(CLOSE_TIMEOUT, undefined, { ref: false })
    const result = await Promise.race([exited, late])
    if (!result) throw new Error(`${this.name} did not close within ${CLOSE_TIMEOUT} ms`)
    if (result[0] !== 0) throw new Error(`${this.name} closed with ${result[1] ?? `exit code ${result[0]}`}`)
    for (const server of ['hub', 'leaf'] as const)
      if (await serverPid(this.#options, server)) throw new Error(`${this.name} left its ${server} running`)
  }

  /** Ends all processes of this node in any state. The node cannot be started again. */
  async end(): Promise<void> {
    this.#ending = true
    this.#ended = true
    // Searches all command lines for the directory: a server that is starting has no pid file yet.
    for (let round = 0; round < END_ROUNDS; round++) {
      const pids = await processesOf(this.directory)
      if (pids.length === 0) return
      for (const pid of pids) kill(pid)
      await delay(20)
    }
    throw new Error(`processes of ${this.name} could not be ended`)
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
    // It has ended.
  }
}
