// The one writer of the manifest: every change, whoever asks for it, goes through its queue into file and memory.

import { type ClusterError, clusterError, reasonOf } from '../errors.ts'
import { type Logger, silent } from '../logger.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import { defaultText } from './config.ts'
import { editConfig } from './config-edit.ts'
import { ConfigFile } from './config-file.ts'
import { nameProblems } from './config-names.ts'
import { ConfigText, type Problem, problemText } from './config-text.ts'
import { diff, withoutRemovals } from './diff.ts'
import { type Cause, type Change, type Manifest, share } from './manifest.ts'
import type { NameCheck } from './names.ts'
import { haveOtherLimits, needRestart, type Settings } from './settings.ts'
import { type Commit, planSteps, type Request, type Step } from './store-steps.ts'

export type { Commit } from './store-steps.ts'

/** Told after memory has changed, in the order of the commits. What these throw is logged. */
export interface StoreListener {
  committed(commit: Commit): void
  /** The limits of streams are others now. */
  limited(settings: Settings): void
  /** The file is bad, or asks for what needs a restart; the last good manifest stays. */
  rejected(problems: readonly Problem[]): void
  missing(problems: readonly Problem[]): void
}

/**
 * Milliseconds that the file must lie still before what takes something away counts, be it an entry that is gone or a limit
 * that is lower: a half-saved file is valid YAML.
 */
const REMOVAL_DELAY = 2000
/** Milliseconds between two looks at a file that may be half written. */
const HALF_WRITTEN = 100
/** Times that an edit may come in between before a commit gives up. */
const ATTEMPTS = 10

const wait = (time: number) => new Promise<void>((done) => setTimeout(done, time))

const settingsPaths = { nodeName: 'clustering.nodeName', enabled: 'clustering.enabled' } as const

export class ManifestStore {
  readonly #file: ConfigFile
  readonly #logger: Logger
  readonly #listeners: StoreListener[] = []
  #manifest: Manifest
  #settings: Settings
  /** The last reading without problems; a commit is written into it. */
  #good: ConfigText
  /** What we saw last on disk, good or bad; undefined: no file. */
  #seen: string | undefined
  /** Of the file as it is now; a commit must not overwrite it. */
  #problems: readonly Problem[] = []
  /** Does the file as it is ask for what only a restart brings? Then nothing is taken in from it. */
  #awaitsRestart = false
  #unreadable = false
  readonly #queue = new SerialQueue()
  /** What the network that the manifest runs on has against a name. */
  #nameFault: NameCheck = () => undefined
  readonly #waiting: Request[] = []
  #removals: NodeJS.Timeout | undefined
  #closed = false

  private constructor(file: ConfigFile, logger: Logger, good: ConfigText, manifest: Manifest, settings: Settings) {
    this.#file = file
    this.#logger = logger
    this.#good = good
    this.#seen = good.onDisk
    this.#manifest = manifest
    this.#settings = settings
  }

  /**
   * Reads the file, creating it with our section when it is missing, and watches it from then on. Rejects with
   * config_rejected, node_name_missing (enabled without a name), or config_unwritable.
   */
  static async open(path: string, options: { logger?: Logger } = {}): Promise<ManifestStore> {
    const logger = options.logger ?? silent
    const file = new ConfigFile(path, logger)
    await file.clean()
    if ((await readOrReject(file)) === undefined) await file.replace(undefined, defaultText)
    const text = new ConfigText((await readOrReject(file)) ?? defaultText)
    const { config } = text
    if (!config) throw rejection(file, text.problems)
    if (config.manifest.enabled && config.manifest.nodeName === '') throw clusterError('node_name_missing', file.path)
    const store = new ManifestStore(file, logger, text, config.manifest, config.settings)
    await file.watch(() => store.#look())
    // What was edited before the watcher was ready.
    store.#look()
    return store
  }

  get manifest(): Manifest {
    return this.#manifest
  }

  get settings(): Settings {
    return this.#settings
  }

  /** From now on a name that `nameFault` has a reason against is a fault of the file. Throws config_rejected when the file has one. */
  restrictNames(nameFault: NameCheck): void {
    this.#nameFault = nameFault
    const problems = nameProblems(this.#good, nameFault)
    if (problems.length > 0) throw rejection(this.#file, problems)
  }

  /** Absolute path. */
  get file(): string {
    return this.#file.path
  }

  listen(listener: StoreListener): void {
    this.#listeners.push(listener)
  }

  /**
   * Queued; `change` runs on the manifest current at its turn and may throw a ClusterError to refuse. Nothing is written and
   * nobody told when it returns the same value. An edit of the file that we have not seen yet is taken in first. Those that
   * wait together are written together; `change` may run more than once, and the last time counts.
   *
   * Rejects with config_rejected while the file is bad, and never overwrites a bad file; with config_unwritable when the
   * disk fails; with closed. Nothing changed then. A file that waits for a restart is no bad file: the change is written
   * into it. A file that was deleted is written again as we last knew it, whole, with the change.
   */
  commit(change: (current: Manifest) => Manifest, cause: Cause, note?: unknown): Promise<Commit> {
    if (this.#closed) return Promise.reject(clusterError('closed'))
    return new Promise((resolve, reject) => {
      this.#waiting.push({ change, cause, note, resolve, reject })
      void this.#queue.run(async () => {
        const waiting = this.#waiting.splice(0)
        while (waiting.length > 0) waiting.splice(0, await this.#commit(waiting))
      })
    })
  }

  /** As many from the first on as can be written together; resolves with their number, at least 1. */
  async #commit(waiting: readonly Request[]): Promise<number> {
    let steps: readonly Step[] = []
    try {
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        await this.#takeEdits()
        if (this.#problems.length > 0) throw rejection(this.#file, this.#problems)
        steps = planSteps(this.#manifest, waiting)
        if (await this.#write(steps.flatMap(({ changes }) => changes))) return this.#settle(steps)
      }
      throw clusterError('config_unwritable', this.file, 'somebody else keeps writing it')
    } catch (error) {
      // It may be one alone that cannot be written.
      if (steps.length > 1) return this.#commit(waiting.slice(0, 1))
      waiting[0]!.reject(error)
      return 1
    }
  }

  #settle(steps: readonly Step[]): number {
    for (const { request, previous, current, changes, refusal } of steps) {
      const { cause, note, resolve, reject } = request
      if (refusal) reject(refusal.reason)
      else
        resolve(
          changes.length === 0 ? { previous, current, changes, cause } : this.#swap(current, changes, cause, note),
        )
    }
    return steps.length
  }

  /** Idempotent; waits for commits under way. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#removals)
    await this.#file.close()
    await this.#queue.idle()
    clearTimeout(this.#removals)
  }

  #swap(current: Manifest, changes: readonly Change[], cause: Cause, note?: unknown): Commit {
    const previous = this.#manifest
    this.#manifest = current
    const commit: Commit = Object.freeze({ previous, current, changes: Object.freeze(changes), cause, note })
    this.#tell((listener) => listener.committed(commit))
    return commit
  }

  #tell(what: (listener: StoreListener) => void): void {
    for (const listener of this.#listeners) {
      try {
        what(listener)
      } catch (error) {
        this.#logger.error({ reason: reasonOf(error) }, 'A listener of the manifest failed')
      }
    }
  }

  /** False when the file was edited meanwhile. */
  async #write(changes: readonly Change[]): Promise<boolean> {
    if (changes.length === 0) return true
    let edited: ConfigText
    try {
      edited = editConfig(this.#good, changes)
    } catch (error) {
      throw clusterError('config_unwritable', this.file, reasonOf(error))
    }
    if (edited.onDisk !== this.#seen) {
      if (!(await this.#file.replace(this.#seen, edited.onDisk))) return false
      this.#seen = edited.onDisk
    }
    this.#good = edited
    return true
  }

  /** The watcher saw something, or time has passed. */
  #look(options: { settled?: boolean } = {}): void {
    void this.#queue.run(async () => {
      if (this.#closed) return
      await this.#takeEdits()
      if (options.settled) this.#takeRest()
    })
  }

  /** Reads the file and takes in what somebody else changed in it. */
  async #takeEdits(): Promise<void> {
    let text: string | undefined
    try {
      text = await this.#file.read()
      if (text === this.#seen && !this.#unreadable) return
      // It may be half of a text, good or bad, or a file on its way to another: a commit into that would be lost with the
      // other half. Wait until it is the same twice.
      for (let looks = 0; looks < ATTEMPTS; looks++) {
        await wait(HALF_WRITTEN)
        const again = await this.#file.read()
        if (again === text) break
        text = again
      }
    } catch (error) {
      if (!this.#unreadable) this.#reject([{ message: `the file cannot be read: ${reasonOf(error)}` }])
      this.#unreadable = true
      return
    }
    if (text === this.#seen && !this.#unreadable) return
    this.#unreadable = false
    clearTimeout(this.#removals)
    this.#seen = text
    if (text === undefined) {
      this.#problems = []
      const problems = [{ message: 'the file is missing; the manifest stays as it was' }]
      this.#tell((listener) => listener.missing(problems))
      return
    }
    this.#takeText(new ConfigText(text))
  }

  #takeText(text: ConfigText): void {
    const { config } = text
    if (!config) {
      this.#reject(text.problems)
      return
    }
    if (config.manifest.enabled && config.manifest.nodeName === '') {
      this.#reject([text.problem(['clustering', 'nodeName'], 'is missing while clustering is enabled')])
      return
    }
    const problems = nameProblems(text, this.#nameFault)
    if (problems.length > 0) {
      this.#reject(problems)
      return
    }
    this.#problems = []
    this.#good = text
    const paths = needRestart(this.#settings, config.settings)
    for (const name of ['nodeName', 'enabled'] as const)
      if (config.manifest[name] !== this.#manifest[name]) paths.push(settingsPaths[name])
    this.#awaitsRestart = paths.length > 0
    if (this.#awaitsRestart) {
      const problems = paths.map((path) =>
        text.problem(
          path.split('.'),
          'cannot change while the cluster manager is open: restart it; until then nothing of this edit takes effect',
        ),
      )
      this.#tell((listener) => listener.rejected(problems))
      return
    }
    this.#settings = Object.freeze({ ...config.settings, streams: this.#settings.streams })
    this.#take(withoutRemovals(this.#manifest, config.manifest))
    // What is left to do is to take away, and to put in order.
    if (diff(this.#manifest, config.manifest).length > 0 || haveOtherLimits(this.#settings, config.settings)) {
      this.#removals = setTimeout(() => this.#look({ settled: true }), REMOVAL_DELAY)
    }
  }

  #takeRest(): void {
    if (this.#seen !== this.#good.onDisk || this.#awaitsRestart || this.#problems.length > 0) return
    const { config } = this.#good
    if (!config) return
    this.#take(config.manifest)
    if (!haveOtherLimits(this.#settings, config.settings)) return
    this.#settings = config.settings
    this.#tell((listener) => listener.limited(config.settings))
  }

  #take(wanted: Manifest): void {
    const current = share(this.#manifest, wanted)
    const changes = diff(this.#manifest, current)
    if (changes.length > 0) this.#swap(current, changes, 'file')
  }

  #reject(problems: readonly Problem[]): void {
    this.#problems = problems
    this.#tell((listener) => listener.rejected(problems))
  }
}

const rejection = (file: ConfigFile, problems: readonly Problem[]): ClusterError =>
  clusterError('config_rejected', file.path, problems.map(problemText).join('; '))

async function readOrReject(file: ConfigFile): Promise<string | undefined> {
  try {
    return await file.read()
  } catch (error) {
    throw rejection(file, [{ message: `the file cannot be read: ${reasonOf(error)}` }])
  }
}
