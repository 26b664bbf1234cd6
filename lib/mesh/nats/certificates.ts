// Validates the node's certificates and watches their files for replacement.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { clusterError, reasonOf } from '../../errors.ts'
import type { Logger } from '../../observe/logger.ts'
import type { Tls } from './configuration.ts'

export type CertificatesOptions = {
  tls: Tls
  logger: Logger
  /** The files have new, valid content. Never rejects. */
  replaced(): Promise<void>
}

const POLL_INTERVAL_MS = 2_000
const DAY_MS = 24 * 3_600_000
/** How long before its expiry a certificate is reported. */
const EXPIRY_WARNING_MS = 14 * DAY_MS

const keys = {
  certificate: 'clustering.tls.certificate',
  certificateAuthority: 'clustering.tls.certificateAuthority',
  privateKey: 'clustering.tls.privateKey',
} as const
type FileKind = keyof typeof keys
type Texts = Record<FileKind, string>

export class Certificates {
  readonly #options: CertificatesOptions
  readonly #timer: NodeJS.Timeout
  #texts: Texts
  /** Prevents the same line at every poll. */
  #lastLogged = ''
  #polling = false

  private constructor(options: CertificatesOptions, texts: Texts) {
    this.#options = options
    this.#texts = texts
    this.#logValidity()
    this.#timer = setInterval(() => void this.#poll(), POLL_INTERVAL_MS)
    this.#timer.unref()
  }

  /** Reads the files, and polls them from then on. Rejects tls_invalid with the file and the reason. */
  static async open(options: CertificatesOptions): Promise<Certificates> {
    const texts = await read(options.tls)
    check(options.tls, texts)
    return new Certificates(options, texts)
  }

  close(): void {
    clearInterval(this.#timer)
  }

  async #poll(): Promise<void> {
    if (this.#polling) return
    this.#polling = true
    const { tls, logger, replaced } = this.#options
    try {
      const texts = await read(tls)
      if (Object.keys(keys).some((kind) => texts[kind as FileKind] !== this.#texts[kind as FileKind])) {
        check(tls, texts)
        this.#texts = texts
        logger.info({ certificate: tls.certificate }, 'certificates replaced')
        await replaced()
      }
      this.#logValidity()
    } catch (error) {
      // An operator replaces one file after the other: the next poll may find a valid set.
      this.#logOnce('warn', `invalid certificates on disk, keeping the previous ones: ${reasonOf(error)}`)
    }
    this.#polling = false
  }

  #logValidity(): void {
    const { validFrom, validTo } = new X509Certificate(this.#texts.certificate)
    const now = Date.now()
    if (now < Date.parse(validFrom)) this.#logOnce('error', `the local certificate is not valid before ${validFrom}`)
    else if (now > Date.parse(validTo)) this.#logOnce('error', `the local certificate has expired on ${validTo}`)
    else if (now > Date.parse(validTo) - EXPIRY_WARNING_MS)
      this.#logOnce('warn', `the local certificate expires on ${validTo}`)
    else this.#lastLogged = ''
  }

  #logOnce(level: 'warn' | 'error', text: string): void {
    if (text === this.#lastLogged) return
    this.#lastLogged = text
    this.#options.logger[level]({ certificate: this.#options.tls.certificate }, text)
  }
}

const invalid = (tls: Tls, kind: FileKind, error: unknown) =>
  clusterError('tls_invalid', keys[kind], tls[kind], error instanceof Error ? error.message : String(error))

async function read(tls: Tls): Promise<Texts> {
  const texts = Object.keys(keys).map(async (kind) => {
    const text = await readFile(tls[kind as FileKind], 'utf8').catch((error) => error as Error)
    if (text instanceof Error) throw invalid(tls, kind as FileKind, text)
    return [kind, text]
  })
  return Object.fromEntries(await Promise.all(texts))
}

/** Throws tls_invalid for files with which a server could not start. */
function check(tls: Tls, texts: Texts): void {
  const parse = <T>(kind: FileKind, work: (text: string) => T): T => {
    try {
      return work(texts[kind])
    } catch (error) {
      throw invalid(tls, kind, error)
    }
  }
  const certificate = parse('certificate', (text) => new X509Certificate(text))
  const key = parse('privateKey', (text) => createPrivateKey(text))
  parse('certificateAuthority', (text) => new X509Certificate(text))
  if (!certificate.checkPrivateKey(key)) throw invalid(tls, 'privateKey', 'it does not belong to the certificate')
}
