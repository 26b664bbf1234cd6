// The only writer of the manifest: every change goes through its queue into file and memory.

import { type ClusterError, clusterError, reasonOf } from '../errors.ts'
import { type Logger, silentLogger } from '../observe/logger.ts'
import { SerialQueue } from '../util/serial-queue.ts'
import { clearTimeout, setTimeout } from '../util/timers.ts'
import { type Commit, type CommitRequest, type CommitStep, planCommits, type Revisions } from './commit-plan.ts'
import { defaultConfigText } from './config.ts'
import { missingKeyProblems } from './config-check.ts'
import { editConfig } from './config-edit.ts'
import { ConfigFile } from './config-file.ts'
import { nameProblems } from './config-names.ts'
import { ConfigText, type Problem, problemText } from './config-text.ts'
import { diff, withoutRemovals } from './diff.ts'
import { type ChangeAuthor, type ChangeCause, type Manifest, type ManifestChange, share } from './manifest.ts'
import type { NameCheck } from './names.ts'
import { limitsDiffer, restartRequiredPaths, type Settings } from './settings.ts'

export type { Commit, Revisions } from './commit-plan.ts'

/** `user`: the name of the caller whose operation this is. */
export type CommitOptions = { revisions?: Revisions; user?: string | undefined }

/** Called after memory has changed, in the order of the commits. Errors thrown by listeners are logged. */
export interface StoreListener {
  committed(commit: Commit): void
  /** The limits of streams changed. */
  limitsChanged(settings: Settings): void
  /** The file is invalid, or requires a restart; the last valid manifest stays. */
  rejected(problems: readonly Problem[]): void
  missing(problems: readonly Problem[]): void
  /** An edit has unknown keys; called once for each edit, valid or not. Those at `open` are in `warnings`. */
  warned(problems: readonly Problem[]): void
}

/**
 * The file must stay unchanged for this time before removed entries and lower limits take effect: a partly written file can be
 * valid YAML.
 */
const REMOVAL_DELAY_MS = 2000
/** Between two reads of a file that may be partly written. */
const STABLE_READ_INTERVAL_MS = 100
/** A commit fails after this many concurrent edits of the file. */
const MAX_ATTEMPTS = 10

const delay = (ms: number) => new Promise<void>((done) => setTimeout(done, ms))

const settingsPaths = { nodeName: 'clustering.nodeName', enabled: 'clustering.enabled' } as const

export class ManifestStore {
  readonly #file: ConfigFile
  readonly #logger: Logger
  readonly #listeners: Partial<StoreListener>[] = []
  #manifest: Manifest
  #settings: Settings
  readonly #openWarnings: readonly Problem[]
  /** The last valid contents; a commit is written into them. */
  #lastValid: ConfigText
  /** The last contents read, valid or not; undefined: no file. */
  #onDisk: string | undefined
  /** Problems of the present file; a commit must not overwrite it. */
  #problems: readonly Problem[] = []
  /** The present file requires a restart: nothing of it is imported. */
  #awaitsRestart = false
  #unreadable = false
  readonly #queue = new SerialQueue()
  /** The rules of the network for names. */
  #nameFault: NameCheck = () => undefined
  readonly #waiting: CommitRequest[] = []
  #removalTimer: NodeJS.Timeout | undefined
  #closed = false

  private constructor(file: ConfigFile, logger: Logger, good: ConfigText, manifest: Manifest, settings: Settings) {
    this.#file = file
    this.#logger = logger
    this.#openWarnings = good.warnings
    this.#lastValid = good
    this.#onDisk = good.onDisk
    this.#manifest = manifest
    this.#settings = settings
  }

  /**
   * Reads the file, creates it with the default section when it is missing, and watches it. Rejects config_rejected,
   * node_name_missing (enabled without a name), config_unwritable.
   */
  static async open(path: string, options: { logger?: Logger } = {}): Promise<ManifestStore> {
    const logger = options.logger ?? silentLogger
    const file = new ConfigFile(path, logger)
    await file.clean()
    if ((await readOrReject(file)) === undefined) await file.replace(undefined, defaultConfigText)
    const text = new ConfigText((await readOrReject(file)) ?? defaultConfigText)
    const { config } = text
    // An unknown key often is the reason for a missing one.
    if (!config) throw configRejected(file, [...text.problems, ...text.warnings])
    if (config.manifest.enabled && config.manifest.nodeName === '') throw clusterError('node_name_missing', file.path)
    const store = new ManifestStore(file, logger, text, config.manifest, config.settings)
    await file.watch(() => store.#checkFile())
    // The file may have been edited before the watcher was ready.
    store.#checkFile()
    return store
  }

  get manifest(): Manifest {
    return this.#manifest
  }

  get settings(): Settings {
    return this.#settings
  }

  /** Unknown keys of the file as it was opened. */
  get warnings(): readonly Problem[] {
    return this.#openWarnings
  }

  /** Names that `nameFault` rejects become faults of the file. Throws config_rejected when the present file has one. */
  restrictNames(nameFault: NameCheck): void {
    this.#nameFault = nameFault
    const problems = nameProblems(this.#lastValid, nameFault)
    if (problems.length > 0) throw configRejected(this.#file, problems)
  }

  /** Absolute path. */
  get file(): string {
    return this.#file.path
  }

  listen(listener: Partial<StoreListener>): void {
    this.#listeners.push(listener)
  }

  /**
   * Queues a change. `change` receives the current manifest and may throw a ClusterError to reject. When it returns the same
   * value nothing is written and no listener is called. Unread edits of the file are imported first. Commits that wait together
   * are written together; `change` may run more than once, and its last run counts.
   *
   * Rejects config_rejected while the file is invalid, and never overwrites it; config_unwritable when writing fails; closed.
   * Nothing changed then. A file that requires a restart is valid: the change is written into it. A deleted file is written
   * again with its last valid contents and the change.
   */
  commit(
    change: (current: Manifest) => Manifest,
    cause: ChangeCause,
    { revisions, user }: CommitOptions = {},
  ): Promise<Commit> {
    if (this.#closed) return Promise.reject(clusterError('closed'))
    const author: ChangeAuthor = { cause, ...(user === undefined ? {} : { user }) }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ change, author, revisions, resolve, reject })
      void this.#queue.run(async () => {
        const waiting = this.#waiting.splice(0)
        while (waiting.length > 0) waiting.splice(0, await this.#commit(waiting))
      })
    })
  }

  /** Commits as many of the first requests as can be written together; resolves with their number, at least 1. */
  async #commit(waiting: readonly CommitRequest[]): Promise<number> {
    let steps: readonly CommitStep[] = []
    try {
      for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        await this.#importEdits()
        if (this.#problems.length > 0) throw configRejected(this.#file, this.#problems)
        steps = planCommits(this.#manifest, waiting)
        if (await this.#write(steps.flatMap(({ changes }) => changes))) return this.#completeSteps(steps)
      }
      throw clusterError('config_unwritable', this.file, 'another process keeps writing it')
    } catch (error) {
      // Perhaps only one of them cannot be written.
      if (steps.length > 1) return this.#commit(waiting.slice(0, 1))
      waiting[0]!.reject(error)
      return 1
    }
  }

  #completeSteps(steps: readonly CommitStep[]): number {
    for (const { request, previous, current, changes, rejection } of steps) {
      const { author, revisions, resolve, reject } = request
      if (rejection) reject(rejection.reason)
      else
        resolve(
          changes.length === 0
            ? { previous, current, changes, ...author }
            : this.#replaceManifest(current, changes, author, revisions),
        )
    }
    return steps.length
  }

  /** Idempotent; waits for commits under way. */
  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#removalTimer)
    await this.#file.close()
    await this.#queue.idle()
    clearTimeout(this.#removalTimer)
  }

  #replaceManifest(
    current: Manifest,
    changes: readonly ManifestChange[],
    author: ChangeAuthor,
    revisions?: Revisions,
  ): Commit {
    const previous = this.#manifest
    this.#manifest = current
    const commit: Commit = Object.freeze({
      previous,
      current,
      changes: Object.freeze(changes),
      ...author,
      ...(revisions && { revisions }),
    })
    this.#notify((listener) => listener.committed?.(commit))
    return commit
  }

  #notify(callback: (listener: Partial<StoreListener>) => void): void {
    for (const listener of this.#listeners) {
      try {
        callback(listener)
      } catch (error) {
        this.#logger.error({ reason: reasonOf(error) }, 'manifest listener failed')
      }
    }
  }

  /** False when the file was edited meanwhile. */
  async #write(changes: readonly ManifestChange[]): Promise<boolean> {
    if (changes.length === 0) return true
    let edited: ConfigText
    try {
      edited = editConfig(this.#lastValid, changes)
    } catch (error) {
      throw clusterError('config_unwritable', this.file, reasonOf(error))
    }
    if (edited.onDisk !== this.#onDisk) {
      if (!(await this.#file.replace(this.#onDisk, edited.onDisk))) return false
      this.#onDisk = edited.onDisk
    }
    this.#lastValid = edited
    return true
  }

  /** Called by the watcher, and with `unchanged` after REMOVAL_DELAY_MS without another edit. */
  #checkFile(options: { unchanged?: boolean } = {}): void {
    void this.#queue.run(async () => {
      if (this.#closed) return
      await this.#importEdits()
      if (options.unchanged) this.#importRemovals()
    })
  }

  /** Reads the file and imports external edits. */
  async #importEdits(): Promise<void> {
    let text: string | undefined
    try {
      text = await this.#file.read()
      if (text === this.#onDisk && !this.#unreadable) return
      // The file may be partly written, and a commit into it would be lost. Wait until two reads are equal.
      for (let reads = 0; reads < MAX_ATTEMPTS; reads++) {
        await delay(STABLE_READ_INTERVAL_MS)
        const again = await this.#file.read()
        if (again === text) break
        text = again
      }
    } catch (error) {
      if (!this.#unreadable) this.#reject([{ message: `the file cannot be read: ${reasonOf(error)}` }])
      this.#unreadable = true
      return
    }
    if (text === this.#onDisk && !this.#unreadable) return
    this.#unreadable = false
    clearTimeout(this.#removalTimer)
    this.#onDisk = text
    if (text === undefined) {
      this.#problems = []
      const problems = [{ message: 'the file is missing; the manifest is unchanged' }]
      this.#notify((listener) => listener.missing?.(problems))
      return
    }
    this.#importText(new ConfigText(text))
  }

  #importText(text: ConfigText): void {
    const { config, warnings } = text
    if (warnings.length > 0) this.#notify((listener) => listener.warned?.(warnings))
    if (!config) {
      this.#reject(text.problems)
      return
    }
    const missing = missingKeyProblems(text, ['nodeName'])
    const problems = missing.length > 0 ? missing : nameProblems(text, this.#nameFault)
    if (problems.length > 0) {
      this.#reject(problems)
      return
    }
    this.#problems = []
    this.#lastValid = text
    const paths = restartRequiredPaths(this.#settings, config.settings)
    for (const name of ['nodeName', 'enabled'] as const)
      if (config.manifest[name] !== this.#manifest[name]) paths.push(settingsPaths[name])
    this.#awaitsRestart = paths.length > 0
    if (this.#awaitsRestart) {
      const problems = paths.map((path) =>
        text.problem(
          path.split('.'),
          'cannot change while the cluster manager is open: restart it; until then the whole edit has no effect',
        ),
      )
      this.#notify((listener) => listener.rejected?.(problems))
      return
    }
    this.#settings = Object.freeze({ ...config.settings, streams: this.#settings.streams })
    this.#importManifest(withoutRemovals(this.#manifest, config.manifest))
    // Only removals and changes of order remain.
    if (diff(this.#manifest, config.manifest).length > 0 || limitsDiffer(this.#settings, config.settings)) {
      this.#removalTimer = setTimeout(() => this.#checkFile({ unchanged: true }), REMOVAL_DELAY_MS)
    }
  }

  #importRemovals(): void {
    if (this.#onDisk !== this.#lastValid.onDisk || this.#awaitsRestart || this.#problems.length > 0) return
    const { config } = this.#lastValid
    if (!config) return
    this.#importManifest(config.manifest)
    if (!limitsDiffer(this.#settings, config.settings)) return
    this.#settings = config.settings
    this.#notify((listener) => listener.limitsChanged?.(config.settings))
  }

  #importManifest(desired: Manifest): void {
    const current = share(this.#manifest, desired)
    const changes = diff(this.#manifest, current)
    if (changes.length > 0) this.#replaceManifest(current, changes, { cause: 'file' })
  }

  #reject(problems: readonly Problem[]): void {
    this.#problems = problems
    this.#notify((listener) => listener.rejected?.(problems))
  }
}

const configRejected = (file: ConfigFile, problems: readonly Problem[]): ClusterError =>
  clusterError('config_rejected', file.path, problems.map(problemText).join('; '))

async function readOrReject(file: ConfigFile): Promise<string | undefined> {
  try {
    return await file.read()
  } catch (error) {
    throw configRejected(file, [{ message: `the file cannot be read: ${reasonOf(error)}` }])
  }
}
