// A node in a separate process, as `npm run node` starts it, with a client over HTTP. For the demo and for tests that kill nodes.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import type { Progress } from '../../lib/index.ts'
import { clusteringOf, clusterPassword, freePorts, type NodePorts } from './cluster.ts'
import { admin, type Login, NodeClient } from './node-client.ts'
import { programArguments } from './program.ts'
import { containsSecret } from './secrets.ts'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
/** As in the script `node` of package.json: the rows are in LMDB, so a heap that grows less before it is collected costs little time. */
const NODE_OPTIONS = ['--max-semi-space-size=1', '--heap-growing-percent=20']
const START_TIMEOUT = 30_000
const STOP_TIMEOUT = 10_000

export { type Answer, admin, canonical, type Login } from './node-client.ts'
export const ordinary: Login = { username: 'reader', password: 'reader password' }
const clusterUser: Login = { username: 'cluster_user', password: clusterPassword }

export class NodeProcess extends NodeClient {
  readonly directory: string
  readonly ports: NodePorts
  readonly #apiPort: number
  #child: ChildProcess | undefined
  #pid = 0
  /** Lines of stderr, for error messages. */
  #errors: string[] = []
  /** Called with the progress of long work. */
  onProgress: ((progress: Progress) => void) | undefined
  /** What the next start runs, below `test`. */
  program = 'host/main.ts'
  /** The first line of output with a secret. */
  #leak: string | undefined

  private constructor(name: string, directory: string, ports: NodePorts, apiPort: number) {
    super(name)
    this.directory = directory
    this.ports = ports
    this.#apiPort = apiPort
  }

  /** Creates the directory and the YAML file of a node below `parent`, without starting it. */
  static async create(parent: string, name: string, clustering: object = {}): Promise<NodeProcess> {
    const { directory, ports, apiPort } = await nodeFiles(parent, name, clustering)
    return new NodeProcess(name, directory, ports, apiPort)
  }
  get configFile(): string {
    return join(this.directory, 'config.yaml')
  }

  get url(): string {
    return `http://127.0.0.1:${this.#apiPort}`
  }

  /** Process id of the database process. */
  get pid(): number {
    return this.#pid
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Resolves with the line that reports that the node is ready. */
  async start(): Promise<string> {
    const child = spawn(
      process.execPath,
      [
        ...NODE_OPTIONS,
        ...programArguments(this.program),
        '--config',
        this.configFile,
        ...(this.onProgress ? ['--progress'] : []),
      ],
      {
        cwd: root,
        stdio: ['ignore', 'pipe', 'pipe'],
        // A separate process group: Ctrl-C reaches only the parent.
        detached: true,
      },
    )
    this.#child = child
    this.#errors = []
    for (const input of [child.stdout!, child.stderr!])
      createInterface({ input }).on('line', (line) => {
        if (containsSecret(line)) this.#leak ??= line
      })
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.#errors.push(line)
      if (this.#errors.length > 50) this.#errors.shift()
    })
    const ready = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(this.#failure('was not ready in time'))), START_TIMEOUT)
      createInterface({ input: child.stdout! }).on('line', (line) => {
        if (line.startsWith('{')) this.onProgress?.(JSON.parse(line))
        if (!line.includes(' ready: ')) return
        clearTimeout(timer)
        resolve(line)
      })
      child.once('exit', () => {
        clearTimeout(timer)
        reject(new Error(this.#failure('ended')))
      })
    })
    this.#pid = Number(/\(pid (\d+)\)/.exec(ready)?.[1])
    return ready
  }

  #failure(what: string): string {
    return `${this.name} ${what}:\n${this.#errors.slice(-10).join('\n')}`
  }

  /** Sends SIGTERM. Resolves with the exit code when all three processes have ended. */
  async stop(): Promise<number | null> {
    const child = this.#child
    if (!child || !this.running) return child?.exitCode ?? null
    const servers = await this.serverPids()
    const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
    child.kill('SIGTERM')
    const code = await Promise.race([exited, delay(STOP_TIMEOUT, undefined, { ref: false })])
    await allGone([this.#pid, ...Object.values(servers)], STOP_TIMEOUT)
    return code ?? null
  }

  /** Sends SIGKILL to the database process and both servers, which simulates a power failure. */
  async kill(): Promise<void> {
    const pids = [this.#pid, ...Object.values(await this.serverPids())]
    for (const pid of pids) kill(pid)
    await allGone(pids, STOP_TIMEOUT)
  }

  async killServer(server: 'hub' | 'leaf'): Promise<void> {
    kill((await this.serverPids())[server])
  }

  /** A value that changes when the process or one of its servers is restarted. */
  async incarnation(): Promise<unknown> {
    return [this.pid, await this.serverPids()]
  }

  async serverPids(): Promise<{ hub: number; leaf: number }> {
    const read = async (server: string) =>
      Number(await readFile(join(this.directory, 'clustering', `${server}.pid`), 'utf8').catch(() => '0'))
    return { hub: await read('hub'), leaf: await read('leaf') }
  }

  /** Ends all processes of this node in any state. Rejects when its output contained a secret. */
  async end(): Promise<void> {
    await this.stop().catch(() => {})
    const servers = await this.serverPids()
    for (const pid of [this.#pid, ...Object.values(servers)]) if (await runsIn(pid, this.directory)) kill(pid)
    if (this.#leak !== undefined) throw new Error(`${this.name} printed a secret: ${this.#leak}`)
  }
}

/** Creates the directory and the YAML file of a node below `parent`. Resolves with the ports in the file. */
export async function nodeFiles(parent: string, name: string, clustering: object = {}) {
  const [cluster = 0, leafNodes = 0, hub = 0, leaf = 0, apiPort = 0] = await freePorts(5)
  const ports: NodePorts = { cluster, leafNodes, hub, leaf }
  const directory = join(parent, name)
  await mkdir(directory, { recursive: true })
  const config = {
    rootPath: '.',
    operationsApi: { network: { port: apiPort } },
    users: [
      { ...admin, role: 'super_user' },
      { ...ordinary, role: 'reader' },
      { ...clusterUser, role: 'cluster_user' },
    ],
    clustering: clusteringOf(name, ports, [], clustering),
  }
  await writeFile(join(directory, 'config.yaml'), `# The configuration of ${name}.\n${stringify(config)}`)
  return { directory, ports, apiPort }
}

function kill(pid: number): void {
  try {
    if (pid > 0) process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended.
  }
}

const isAlive = (pid: number): boolean => {
  try {
    return pid > 0 && process.kill(pid, 0)
  } catch {
    return false
  }
}

/** The system reuses pids: compares the command line with the directory. */
async function runsIn(pid: number, directory: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).includes(directory)
}

async function allGone(pids: number[], timeout: number): Promise<void> {
  const end = Date.now() + timeout
  while (pids.some(isAlive)) {
    if (Date.now() > end) throw new Error(`still running after ${timeout} ms: ${pids.filter(isAlive)}`)
    await delay(20)
  }
}
