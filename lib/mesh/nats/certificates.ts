// The certificates that the servers use: checked copies of the files that the configuration names, which are watched for replacement.
// A server reads its files at every start, also while an operator replaces them: it must find the last good ones.

import { createHash } from 'node:crypto'
import { mkdir, readdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { clusterError, clusterErrorFrom, reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import { writeFileAtomic } from '../../util/atomic-file.ts'
import { ensurePrivateDirectory } from '../../util/private-directory.ts'
import { clearInterval, setInterval, systemTimers } from '../../util/timers.ts'
import { CertificateFault, checkCertificates, expiryOf, type FileKind, type TlsContents } from './certificate-check.ts'
import type { Tls } from './configuration.ts'

export type CertificatesOptions = {
  tls: Tls
  /** Holds the copies. */
  directory: string
  /** The host by which the local leaf reaches the local hub. */
  localHost: string
  logger: Logger
  /** Lets the servers read the new copies. When it rejects, it is called again. */
  reload(): Promise<void>
  /** New files are in use; with a reason: they are not usable, and the previous ones stay in use. */
  changed(rejection?: string): void
}

const POLL_INTERVAL_MS = 2_000
const DAY_MS = 24 * 3_600_000
/** How long before its expiry a certificate is reported. */
const EXPIRY_WARNING_MS = 14 * DAY_MS

const keys: Record<FileKind, string> = {
  certificate: 'clustering.tls.certificate',
  certificateAuthority: 'clustering.tls.certificateAuthority',
  privateKey: 'clustering.tls.privateKey',
}
const kinds = Object.keys(keys) as FileKind[]

export class Certificates {
  readonly #options: CertificatesOptions
  #timer: NodeJS.Timeout | undefined
  #contents: TlsContents
  /** ms since 1970. */
  #expiresAt: number
  /** Hash of the unusable contents of the last poll, and of those that were reported. */
  #candidate = ''
  #rejected = ''
  /** The servers have not read the new copies yet. */
  #isPending = false
  #copies = 0
  #lastWarning = { text: '', time: 0 }
  #lastFailure = ''
  #polling = false

  private constructor(options: CertificatesOptions, contents: TlsContents, expiresAt: number) {
    this.#options = options
    this.#contents = contents
    this.#expiresAt = expiresAt
  }

  /** Checks and copies the files, and polls them from then on. Rejects tls_invalid with the file and the reason, directory_unusable. */
  static async open(options: CertificatesOptions): Promise<Certificates> {
    const contents = await read(options.tls)
    const certificates = new Certificates(options, contents, check(options, contents))
    // Copies of an earlier run.
    await rm(certificates.#directory, { recursive: true, force: true })
    await ensurePrivateDirectory(certificates.#directory)
    await certificates.#copy(contents)
    certificates.#logExpiry()
    certificates.#timer = setInterval(() => void certificates.#poll(), POLL_INTERVAL_MS)
    certificates.#timer.unref()
    return certificates
  }

  /** For tests: true while files are read. */
  get polling(): boolean {
    return this.#polling
  }

  /** The copies, for the configuration of the servers. The paths never change. */
  get files(): Pick<Tls, FileKind> {
    const path = (kind: FileKind) => join(this.#directory, 'current', `${kind}.pem`)
    return {
      certificate: path('certificate'),
      certificateAuthority: path('certificateAuthority'),
      privateKey: path('privateKey'),
    }
  }

  /** One sentence each; empty when nothing expires soon. */
  get warnings(): readonly string[] {
    const left = this.#expiresAt - systemTimers.now()
    if (left > EXPIRY_WARNING_MS) return []
    const time = new Date(this.#expiresAt).toISOString()
    return [`The local certificate ${left > 0 ? 'expires' : 'has expired'} on ${time}, or its issuer does.`]
  }

  /** Ends the polling and removes the copies. Call it when no server runs. */
  async close(): Promise<void> {
    this.stop()
    await rm(this.#directory, { recursive: true, force: true })
  }

  /** Ends the polling. */
  stop(): void {
    clearInterval(this.#timer)
  }

  get #directory(): string {
    return join(this.#options.directory, 'tls')
  }

  async #poll(): Promise<void> {
    if (this.#polling) return
    this.#polling = true
    try {
      await this.#update()
      this.#lastFailure = ''
    } catch (error) {
      const reason = reasonOf(error)
      if (reason !== this.#lastFailure)
        this.#options.logger.error({ reason }, 'new certificates not in use yet, retrying')
      this.#lastFailure = reason
    }
    this.#logExpiry()
    this.#polling = false
  }

  async #update(): Promise<void> {
    const { tls, logger, reload, changed } = this.#options
    const found = await this.#find()
    if (found) {
      await this.#copy(found.contents)
      this.#contents = found.contents
      this.#expiresAt = found.expiresAt
      this.#isPending = true
    }
    if (!this.#isPending) return
    await reload()
    this.#isPending = false
    const expires = new Date(this.#expiresAt).toISOString()
    logger.info({ certificate: tls.certificate, expires }, 'certificates replaced')
    changed()
  }

  /** New contents that are usable, also later than they were written: they may not have been valid yet. */
  async #find(): Promise<{ contents: TlsContents; expiresAt: number } | undefined> {
    let contents: TlsContents | undefined
    try {
      contents = await read(this.#options.tls)
      const isInUse = kinds.every((kind) => contents![kind].equals(this.#contents[kind]))
      const expiresAt = isInUse ? 0 : check(this.#options, contents)
      this.#candidate = ''
      this.#rejected = ''
      return isInUse ? undefined : { contents, expiresAt }
    } catch (error) {
      this.#reject(reasonOf(error), contents)
      return undefined
    }
  }

  /** An operator replaces one file after the other: reports what stays for a poll, once. */
  #reject(reason: string, contents: TlsContents | undefined): void {
    const { tls, logger, changed } = this.#options
    const hash = createHash('sha256').update(reason)
    for (const kind of kinds) hash.update(contents?.[kind] ?? '')
    const candidate = hash.digest('hex')
    if (candidate === this.#candidate && candidate !== this.#rejected) {
      this.#rejected = candidate
      logger.warn(
        { certificate: tls.certificate },
        `invalid certificates on disk, keeping the previous ones: ${reason}`,
      )
      changed(reason)
    }
    this.#candidate = candidate
  }

  /** The servers see all three files of one version: `current` is replaced in one step. */
  async #copy(contents: TlsContents): Promise<void> {
    const version = join(this.#directory, `v${++this.#copies}`)
    await mkdir(version, { mode: 0o700 })
    for (const kind of kinds) await writeFileAtomic(join(version, `${kind}.pem`), contents[kind])
    const link = join(this.#directory, `current.${this.#copies}`)
    await symlink(version, link, 'junction')
    await rename(link, join(this.#directory, 'current'))
    const others = (await readdir(this.#directory)).filter((name) => !['current', `v${this.#copies}`].includes(name))
    for (const name of others) await rm(join(this.#directory, name), { recursive: true, force: true })
  }

  /** Once a day. */
  #logExpiry(): void {
    const [text] = this.warnings
    const now = systemTimers.now()
    if (!text || (text === this.#lastWarning.text && now - this.#lastWarning.time < DAY_MS)) return
    this.#lastWarning = { text, time: now }
    const level = now > this.#expiresAt ? 'error' : 'warn'
    this.#options.logger[level]({ certificate: this.#options.tls.certificate }, text)
  }
}

async function read(tls: Tls): Promise<TlsContents> {
  const contents = kinds.map(async (kind) => {
    const content = await readFile(tls[kind]).catch((error) => error as Error)
    if (content instanceof Error) throw clusterError('tls_invalid', keys[kind], tls[kind], content.message)
    return [kind, content]
  })
  return Object.fromEntries(await Promise.all(contents))
}

/** When the certificates expire, in ms since 1970. Throws tls_invalid when a node cannot work with them. */
function check({ tls, localHost }: CertificatesOptions, contents: TlsContents): number {
  try {
    return expiryOf(checkCertificates(contents, { localHost, insecure: tls.insecure, now: systemTimers.now() }))
  } catch (error) {
    if (!(error instanceof CertificateFault)) throw error
    throw clusterErrorFrom(error, 'tls_invalid', keys[error.kind], tls[error.kind], error.message)
  }
}
