// The lock of a directory: across processes, containers, kills, suspended owners, and machines that share a file system.

import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, it, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type DirectoryLockOptions, lockDirectory } from '../../lib/util/directory-lock.ts'
import { eventually, killed, stopped } from '../support/cluster.ts'
import { programArguments } from '../support/program.ts'

async function temporary(test: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'enmesh-lock-'))
  test.after(() => rm(directory, { recursive: true, force: true }))
  return directory
}

const owner = '/etc/database.yaml'
const inUse = (message: RegExp = /is in use by another cluster manager/) => ({ code: 'directory_in_use', message })
const lockEntries = async (directory: string) => (await readdir(directory)).filter((name) => name.startsWith('lock-'))

/** A process that holds the lock or failed, ended after the test. `lines` are its answers. */
class Holder {
  readonly child: ChildProcess
  readonly #lines: AsyncIterator<string>

  constructor(test: TestContext, args: readonly string[], command: readonly string[] = []) {
    const program = [...command, process.execPath, ...programArguments('support/lock-process.ts'), ...args]
    this.child = spawn(program[0]!, program.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface(this.child.stdout!)[Symbol.asyncIterator]()
    test.after(async () => {
      if (this.child.exitCode === null && this.child.signalCode === null) await killed(this.child)
    })
  }

  async answer(): Promise<string> {
    const { value, done } = await this.#lines.next()
    if (done) throw new Error('the process ended without an answer')
    return value
  }
}

/** The answers of processes that begin at the same time. */
async function race(test: TestContext, calls: readonly string[][], start: string): Promise<string[]> {
  const holders = calls.map((args) => new Holder(test, args))
  for (const holder of holders) assert.equal(await holder.answer(), 'ready')
  await writeFile(start, '')
  return Promise.all(holders.map((holder) => holder.answer()))
}

const namespaces = ['unshare', '--net', '--pid', '--fork', '--mount-proc', '--kill-child']
function withoutNamespaces(): string | false {
  try {
    execFileSync(namespaces[0]!, [...namespaces.slice(1), 'true'], { stdio: 'ignore' })
    return false
  } catch {
    return 'namespaces cannot be created here'
  }
}

describe('the lock of a directory', () => {
  it('is held once in a process, and names its holder', async (test) => {
    const directory = await temporary(test)
    const lock = await lockDirectory(directory, { owner })
    const message = new RegExp(`^Directory ${directory} is in use by .*process ${process.pid} on host .*${owner}$`)
    await assert.rejects(lockDirectory(directory, { owner: 'other' }), inUse(message))
    await Promise.all([lock.release(), lock.release()])
    assert.deepEqual(await readdir(directory), [])
    const next = await lockDirectory(directory, { owner })
    await next.release()
  })

  it('holds for every path to the directory, and for no other directory', async (test) => {
    const directory = await temporary(test)
    await mkdir(join(directory, 'real'))
    await mkdir(join(directory, 'other'))
    await symlink('real', join(directory, 'link'))
    const lock = await lockDirectory(join(directory, 'real'), { owner })
    await assert.rejects(lockDirectory(join(directory, 'link'), { owner }), inUse())
    const other = await lockDirectory(join(directory, 'other'), { owner })
    await Promise.all([lock.release(), other.release()])
  })

  it('holds in a directory whose path is longer than that of a socket', async (test) => {
    let directory = await temporary(test)
    for (let depth = 0; depth < 6; depth++) directory = join(directory, 'ä'.repeat(100))
    await mkdir(directory, { recursive: true })
    const lock = await lockDirectory(directory, { owner })
    await assert.rejects(lockDirectory(directory, { owner }), inUse(/configuration file \/etc\/database.yaml$/))
    await lock.release()
    assert.deepEqual(await readdir(directory), [])
  })

  it('is held by one of many callers at the same time', async (test) => {
    const directory = await temporary(test)
    for (let round = 0; round < 10; round++) {
      const results = await Promise.allSettled(Array.from({ length: 8 }, () => lockDirectory(directory, { owner })))
      const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
      const codes = results.flatMap((result) => (result.status === 'rejected' ? [result.reason.code] : []))
      assert.equal(held.length, 1)
      assert.deepEqual(codes, Array(7).fill('directory_in_use'))
      await held[0]!.release()
    }
  })

  it('is held by one of many processes that find leftovers', { timeout: 120_000 }, async (test) => {
    const directory = await temporary(test)
    const start = join(await temporary(test), 'start')
    const dead = new Holder(test, [directory])
    assert.equal(await dead.answer(), 'held')
    await killed(dead.child)
    const [leftover] = await lockEntries(directory)
    assert.ok(leftover)
    await writeFile(join(directory, `${leftover}~new`), '')
    const answers = await race(test, Array(6).fill([directory, start]), start)
    assert.equal(answers.filter((answer) => answer === 'held').length, 1, answers.join('\n'))
    assert.equal(answers.filter((answer) => answer.startsWith('directory_in_use ')).length, 5, answers.join('\n'))
    await eventually('one entry is left', async () => (await lockEntries(directory)).length === 1)
    assert.ok(!(await lockEntries(directory)).includes(leftover))
  })

  it('is never held by two processes that take it in turns', { timeout: 120_000 }, async (test) => {
    const directory = await temporary(test)
    const start = join(await temporary(test), 'start')
    const answers = race(test, Array(4).fill([directory, start, 'contend']), start)
    await eventually('the processes have started', () => stat(start).catch(() => undefined))
    await delay(1_500)
    await rm(start)
    const counts = (await answers).map(Number)
    assert.ok(counts.every((count) => count >= 0) && counts.some((count) => count > 0), (await answers).join('\n'))
    assert.deepEqual(await readdir(directory), [])
  })

  it('is released by the kernel when its process is killed, and kept while it is suspended', async (test) => {
    const directory = await temporary(test)
    const holder = new Holder(test, [directory])
    assert.equal(await holder.answer(), 'held')
    const pid = holder.child.pid!
    process.kill(pid, 'SIGSTOP')
    await stopped(pid)
    await assert.rejects(lockDirectory(directory, { owner }), inUse(new RegExp(`process ${pid} on host`)))
    await killed(holder.child)
    const lock = await lockDirectory(directory, { owner })
    assert.equal((await lockEntries(directory)).length, 1)
    await lock.release()
  })

  it('holds across namespaces of networks and processes', { skip: withoutNamespaces() }, async (test) => {
    const directory = await temporary(test)
    const holder = new Holder(test, [directory], namespaces)
    assert.equal(await holder.answer(), 'held')
    await assert.rejects(lockDirectory(directory, { owner }), inUse())
    const second = new Holder(test, [directory], namespaces)
    assert.match(await second.answer(), /^directory_in_use /)
    await killed(holder.child)
    // The processes in the namespace are killed with it, a moment later.
    const lock = await eventually('the lock is free', () => lockDirectory(directory, { owner }).catch(() => undefined))
    await lock.release()
  })

  it('is held by one worker of a cluster of Node', async (test) => {
    const directory = await temporary(test)
    const holder = new Holder(test, [directory, '', 'cluster'])
    const answers = [await holder.answer(), await holder.answer()].sort()
    assert.match(answers[0]!, /^directory_in_use /)
    assert.equal(answers[1], 'held')
  })

  it('is written again when its entry was removed', async (test) => {
    const directory = await temporary(test)
    let reports = 0
    const lock = await lockDirectory(directory, { owner, leaseMs: 100, onEntryLost: () => reports++ })
    for (const name of await lockEntries(directory)) await rm(join(directory, name))
    await eventually('the loss is reported', () => reports === 1)
    await assert.rejects(lockDirectory(directory, { owner }), inUse())
    await lock.release()
    assert.deepEqual(await readdir(directory), [])
  })
})

describe('the lock of a directory that several machines share', () => {
  const LEASE_MS = 1_000

  /** The entry of a killed process, as another machine sees it. */
  async function foreignEntry(test: TestContext, directory: string): Promise<string> {
    const dead = new Holder(test, [directory])
    assert.equal(await dead.answer(), 'held')
    await killed(dead.child)
    const [name] = await lockEntries(directory)
    const foreign = join(directory, name!.replace(/^lock-[0-9a-f]{8}/, 'lock-00000000'))
    await rename(join(directory, name!), foreign)
    return foreign
  }

  it('is in use while its owner renews it, although its socket refuses here', async (test) => {
    const directory = await temporary(test)
    const entry = await foreignEntry(test, directory)
    const renewal = setInterval(() => void utimes(entry, new Date(), new Date()).catch(() => {}), LEASE_MS / 4)
    test.after(() => clearInterval(renewal))
    await assert.rejects(lockDirectory(directory, { owner, leaseMs: LEASE_MS }), inUse(/on host/))
    clearInterval(renewal)
    const lock = await lockDirectory(directory, { owner, leaseMs: LEASE_MS })
    await lock.release()
    assert.deepEqual(await readdir(directory), [])
  })
})

describe('the lock of a directory that cannot hold sockets', () => {
  const options = (reasons: string[] = []): DirectoryLockOptions => ({
    owner,
    leaseMs: 1_000,
    listen: () => Promise.reject(new Error('operation not permitted')),
    onLeaseOnly: (reason) => reasons.push(reason),
  })

  it('is a file that is renewed, and reported', async (test) => {
    const directory = await temporary(test)
    const reasons: string[] = []
    const lock = await lockDirectory(directory, options(reasons))
    assert.deepEqual(reasons, ['operation not permitted'])
    const holder = inUse(new RegExp(`process ${process.pid} on host .*${owner}$`))
    // The lock keeps no process alive.
    const alive = setInterval(() => {}, 1_000)
    test.after(() => clearInterval(alive))
    await assert.rejects(lockDirectory(directory, options()), holder)
    // One that can hold sockets again.
    await assert.rejects(lockDirectory(directory, { owner, leaseMs: 1_000 }), holder)
    await lock.release()
    assert.deepEqual(await readdir(directory), [])
  })

  it('is held by one of several callers at the same time, and ends with its lease', async (test) => {
    const directory = await temporary(test)
    const results = await Promise.allSettled(Array.from({ length: 4 }, () => lockDirectory(directory, options())))
    const held = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []))
    assert.equal(held.length, 1)
    await held[0]!.release()
    // As a killed process leaves it.
    const lock = await lockDirectory(directory, options())
    const [name] = await lockEntries(directory)
    await lock.release()
    await writeFile(join(directory, name!), JSON.stringify({ state: 'held' }))
    const next = await lockDirectory(directory, options())
    await next.release()
  })

  it('rejects when the file cannot be written either', async (test) => {
    const directory = join(await temporary(test), 'missing')
    await assert.rejects(lockDirectory(directory, options()), { code: 'directory_unusable' })
  })
})
