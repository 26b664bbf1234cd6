// A temporary certificate authority that issues valid and invalid node certificates.

import { generateKeyPair, randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import forge from 'node-forge'

const HOUR = 3_600_000

/** Paths of PEM files, as in `clustering.tls`. */
export type TlsFiles = { certificate: string; certificateAuthority: string; privateKey: string }

export type CertificateOptions = {
  /** Host names and IP addresses of the certificate, [] for no `subjectAltName`. Default: 127.0.0.1 and localhost. */
  names?: string[]
  /** Extended key usage, absent for no extension. Default: both. */
  usage?: { serverAuth?: boolean; clientAuth?: boolean } | undefined
  /** Certificates after that of the node, PEM. Default: none. */
  intermediates?: string
  /** Default: from an hour ago, for a day. */
  notBefore?: Date
  notAfter?: Date
  /** Certificates of the trusted authorities, PEM. Default: this authority's. */
  trusted?: string
}

type KeyPair = { publicKey: forge.pki.rsa.PublicKey; privateKey: forge.pki.rsa.PrivateKey; pem: string }

async function newKeys(): Promise<KeyPair> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs1', format: 'pem' },
  })
  return {
    publicKey: forge.pki.publicKeyFromPem(publicKey) as forge.pki.rsa.PublicKey,
    privateKey: forge.pki.privateKeyFromPem(privateKey) as forge.pki.rsa.PrivateKey,
    pem: privateKey,
  }
}

const alternativeName = (name: string) => (isIP(name) ? { type: 7, ip: name } : { type: 2, value: name })

const named = (name: string) => [{ name: 'commonName', value: name }]

function newCertificate(subject: string, issuer: string, { publicKey }: KeyPair, options: CertificateOptions) {
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = publicKey
  // The first byte keeps the number positive, and its encoding the shortest one.
  certificate.serialNumber = `01${randomBytes(8).toString('hex')}`
  certificate.validity.notBefore = options.notBefore ?? new Date(Date.now() - HOUR)
  certificate.validity.notAfter = options.notAfter ?? new Date(Date.now() + 24 * HOUR)
  certificate.setSubject(named(subject))
  certificate.setIssuer(named(issuer))
  return certificate
}

export class Authority {
  readonly #name: string
  readonly #keys: KeyPair
  /** The authority's certificate. */
  readonly pem: string

  private constructor(name: string, keys: KeyPair, pem: string) {
    this.#name = name
    this.#keys = keys
    this.pem = pem
  }

  static async create(name = 'throw-away authority', options: CertificateOptions = {}): Promise<Authority> {
    const keys = await newKeys()
    return Authority.#certify(name, keys, { name, keys }, options)
  }

  /** An authority whose certificate is issued by this one. */
  async intermediate(name: string, options: CertificateOptions = {}): Promise<Authority> {
    return Authority.#certify(name, await newKeys(), { name: this.#name, keys: this.#keys }, options)
  }

  static #certify(name: string, keys: KeyPair, issuer: { name: string; keys: KeyPair }, options: CertificateOptions) {
    const certificate = newCertificate(name, issuer.name, keys, options)
    certificate.setExtensions([
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
      ...(options.usage ? [{ name: 'extKeyUsage', ...options.usage }] : []),
    ])
    certificate.sign(issuer.keys.privateKey, forge.md.sha256.create())
    return new Authority(name, keys, forge.pki.certificateToPem(certificate))
  }

  /** Writes certificate, key and trusted authorities to `directory`; creates it and replaces existing files. */
  async issue(directory: string, subject: string, options: CertificateOptions = {}): Promise<TlsFiles> {
    const { names = ['127.0.0.1', 'localhost'], intermediates = '' } = options
    const usage = 'usage' in options ? options.usage : { serverAuth: true, clientAuth: true }
    const keys = await newKeys()
    const certificate = newCertificate(subject, this.#name, keys, options)
    certificate.setExtensions([
      ...(usage ? [{ name: 'extKeyUsage', ...usage }] : []),
      ...(names.length > 0 ? [{ name: 'subjectAltName', altNames: names.map(alternativeName) }] : []),
    ])
    certificate.sign(this.#keys.privateKey, forge.md.sha256.create())
    const files = {
      certificate: join(directory, 'certificate.pem'),
      certificateAuthority: join(directory, 'authority.pem'),
      privateKey: join(directory, 'key.pem'),
    }
    await mkdir(directory, { recursive: true })
    await writeFile(files.privateKey, keys.pem, { mode: 0o600 })
    await writeFile(files.certificate, `${forge.pki.certificateToPem(certificate)}${intermediates}`)
    await writeFile(files.certificateAuthority, options.trusted ?? this.pem)
    return files
  }
}
