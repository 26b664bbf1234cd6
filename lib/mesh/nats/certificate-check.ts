// Decides whether a node can work with its three PEM files: as a server for its peers and its leaf, and as a client of others. The rules
// are those of nats-server (crypto/tls and crypto/x509 of Go).

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'

export type FileKind = 'certificate' | 'certificateAuthority' | 'privateKey'
/** Contents of the files. */
export type TlsContents = Record<FileKind, Buffer>

export type CheckOptions = {
  /** The host by which the local leaf reaches the local hub. */
  localHost: string
  /** Servers that this node connects to are not verified. */
  insecure: boolean
  /** ms since 1970. */
  now: number
}

/** Why a file is not usable, as the end of a sentence. */
export class CertificateFault extends Error {
  override readonly name = 'CertificateFault'
  readonly kind: FileKind
  constructor(kind: FileKind, reason: string) {
    super(reason)
    this.kind = kind
  }
}

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1'
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'
const ANY_USAGE = '2.5.29.37.0'
/** Go verifies chains that are longer than any in use; this bounds the search. */
const MAX_CHAIN_LENGTH = 10
const RSA_BITS = { min: 1024, max: 8192 }
const CURVES = ['prime256v1', 'secp384r1', 'secp521r1']

const nameOf = ({ subject }: X509Certificate) => subject?.replaceAll('\n', ', ') || 'without a subject'

/** The certificates from that of the node to that of an authority. Throws CertificateFault. */
export function checkCertificates(contents: TlsContents, options: CheckOptions): X509Certificate[] {
  const certificates = readCertificates('certificate', contents.certificate)
  const authorities = readCertificates('certificateAuthority', contents.certificateAuthority)
  const key = readKey(contents.privateKey)
  const certificate = certificates[0]!
  checkKey(certificates, key)
  checkValidity('certificate', certificate, options.now)
  checkNames(certificate, options)
  const chain = findChain(certificates, authorities, options.now)
  for (const each of chain) checkUsage(each, each === certificate, options)
  return chain
}

/** When the first certificate of the chain expires, in ms since 1970. */
export const expiryOf = (chain: readonly X509Certificate[]): number =>
  Math.min(...chain.map(({ validTo }) => Date.parse(validTo)))

function textOf(kind: FileKind, content: Buffer): string {
  if (content.length === 0) throw new CertificateFault(kind, 'it is empty')
  const [first, second, third] = content
  if (
    (first === 0xef && second === 0xbb && third === 0xbf) ||
    (first === 0xff && second === 0xfe) ||
    (first === 0xfe && second === 0xff)
  )
    throw new CertificateFault(kind, 'it begins with a byte order mark, save it without one, as ASCII or UTF-8')
  const text = content.toString('latin1')
  // 0x30 begins every file in DER.
  if (!text.includes('-----BEGIN') && first === 0x30)
    throw new CertificateFault(kind, 'it is in DER format (or PKCS#12), convert it to PEM')
  return text
}

/** Blocks as Go reads them: markers at the beginning of a line. */
const blocksOf = (text: string) =>
  [...text.matchAll(/^-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n([\s\S]*?)^-----END \1-----/gm)].map(
    ([pem, type = '']) => ({
      type,
      pem,
    }),
  )

function readCertificates(kind: FileKind, content: Buffer): X509Certificate[] {
  const text = textOf(kind, content)
  const blocks = blocksOf(text)
  const found = blocks.filter(({ type }) => type === 'CERTIFICATE')
  if (text.split('-----BEGIN CERTIFICATE-----').length - 1 > found.length)
    throw new CertificateFault(kind, 'it ends within a certificate, or a line with BEGIN or END is damaged')
  if (found.length === 0) {
    const types = blocks.map(({ type }) => type).join(', ')
    throw new CertificateFault(kind, `it contains no certificate${types ? `, only ${types}` : ''}`)
  }
  return found.map(({ pem }, index) => {
    try {
      return new X509Certificate(pem)
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new CertificateFault(kind, `certificate ${index + 1} in it cannot be read: ${reason}`)
    }
  })
}

function readKey(content: Buffer): KeyObject {
  const text = textOf('privateKey', content)
  const block = blocksOf(text).find(({ type }) => type.endsWith('PRIVATE KEY'))
  if (!block) throw new CertificateFault('privateKey', 'it contains no complete private key')
  if (block.type.startsWith('ENCRYPTED') || /^Proc-Type:.*ENCRYPTED/m.test(block.pem))
    throw new CertificateFault('privateKey', 'the key is encrypted, nats-server needs it without a passphrase')
  if (block.type.startsWith('OPENSSH'))
    throw new CertificateFault('privateKey', 'the key is in the format of OpenSSH, convert it to PKCS#8')
  try {
    return createPrivateKey(block.pem)
  } catch (error) {
    throw new CertificateFault('privateKey', error instanceof Error ? error.message : String(error))
  }
}

/** Why nats-server cannot use a key of this type; undefined if it can. */
function keyTypeFault({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string | undefined {
  if (type === 'ed25519') return undefined
  if (type === 'ec') {
    const curve = details?.namedCurve ?? 'unknown'
    return CURVES.includes(curve) ? undefined : `nats-server supports the curves P-256, P-384 and P-521, not ${curve}`
  }
  if (type !== 'rsa') return `nats-server supports keys of the types RSA, ECDSA and Ed25519, not ${type}`
  const bits = details?.modulusLength ?? 0
  if (bits >= RSA_BITS.min && bits <= RSA_BITS.max) return undefined
  return `nats-server supports RSA keys of ${RSA_BITS.min} to ${RSA_BITS.max} bits, not of ${bits}`
}

function checkKey(certificates: readonly X509Certificate[], key: KeyObject): void {
  const index = certificates.findIndex((certificate) => certificate.checkPrivateKey(key))
  if (index < 0) throw new CertificateFault('privateKey', 'it does not belong to the certificate')
  if (index > 0) {
    const reason = `its certificates are in the wrong order: that of the node is number ${index + 1}, it must be the first`
    throw new CertificateFault('certificate', reason)
  }
  const fault = keyTypeFault(key)
  if (fault) throw new CertificateFault('privateKey', fault)
}

function checkValidity(kind: FileKind, certificate: X509Certificate, now: number): void {
  const fault = validityFault(certificate, now)
  if (fault) throw new CertificateFault(kind, fault)
}

function validityFault({ validFrom, validTo }: X509Certificate, now: number): string | undefined {
  if (now < Date.parse(validFrom)) return `it is not valid before ${validFrom}`
  return now > Date.parse(validTo) ? `it has expired on ${validTo}` : undefined
}

/** Servers compare names with `subjectAltName` only, never with the common name. */
function checkNames(certificate: X509Certificate, { localHost, insecure }: CheckOptions): void {
  if (insecure) return
  if (!certificate.subjectAltName) throw new CertificateFault('certificate', 'it has no subjectAltName')
  const host = localHost.replace(/^\[|\]$/g, '')
  const found = isIP(host) ? certificate.checkIP(host) : certificate.checkHost(host, { subject: 'never' })
  if (found) return
  const reason = `it is not valid for ${host}, by which the local leaf reaches the local hub, but for ${certificate.subjectAltName}`
  throw new CertificateFault('certificate', reason)
}

/** Both ends of a link verify each other. Without an extension a certificate is valid for everything. */
function checkUsage(certificate: X509Certificate, isLocal: boolean, { insecure }: CheckOptions): void {
  const usages: readonly string[] | undefined = certificate.keyUsage
  if (!usages || usages.length === 0 || usages.includes(ANY_USAGE)) return
  const missing = [
    ...(usages.includes(CLIENT_AUTH) ? [] : ['clients (clientAuth)']),
    ...(usages.includes(SERVER_AUTH) || insecure ? [] : ['servers (serverAuth)']),
  ]
  if (missing.length === 0) return
  const reason = `its extended key usage does not include ${missing.join(' and ')}, and nodes are both`
  if (isLocal) throw new CertificateFault('certificate', reason)
  throw new CertificateFault('certificate', `the issuer ${nameOf(certificate)}: ${reason}`)
}

/** An authority in the file of authorities need not say that it is one when it signed itself: certificates of version 1 cannot. */
const isSelfSigned = (certificate: X509Certificate) => isIssuedBy(certificate, certificate)

function isIssuedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
  } catch {
    return false
  }
}

function findChain(
  certificates: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
  now: number,
): X509Certificate[] {
  const local = certificates[0]!
  const isTrusted = (certificate: X509Certificate) => authorities.some((each) => each.raw.equals(certificate.raw))
  if (!authorities.some((each) => each.ca || isSelfSigned(each)))
    throw new CertificateFault('certificateAuthority', 'it contains no certificate of an authority')
  const faults: CertificateFault[] = []
  const extend = (chain: X509Certificate[]): X509Certificate[] | undefined => {
    const last = chain.at(-1)!
    if (isTrusted(last)) return chain
    if (chain.length >= MAX_CHAIN_LENGTH) return undefined
    for (const issuer of [...authorities, ...certificates.slice(1)]) {
      if (chain.some((each) => each.raw.equals(issuer.raw)) || !isIssuedBy(last, issuer)) continue
      const kind = isTrusted(issuer) ? 'certificateAuthority' : 'certificate'
      const fault = issuerFault(issuer, isTrusted(issuer), now)
      if (fault) faults.push(new CertificateFault(kind, `${nameOf(issuer)}: ${fault}`))
      else {
        const found = extend([...chain, issuer])
        if (found) return found
      }
    }
    return undefined
  }
  const chain = extend([local])
  if (chain) return chain
  throw faults[0] ?? new CertificateFault('certificate', unlinkedReason(local, certificates))
}

function issuerFault(issuer: X509Certificate, isTrusted: boolean, now: number): string | undefined {
  if (!issuer.ca && !(isTrusted && isSelfSigned(issuer))) return 'it is not a certificate of an authority'
  return validityFault(issuer, now) ?? keyTypeFault(issuer.publicKey)
}

/** The last issuer that the file has, and the one that is missing. */
function unlinkedReason(local: X509Certificate, certificates: readonly X509Certificate[]): string {
  let last = local
  for (let length = 1; length < MAX_CHAIN_LENGTH; length++) {
    const issuer = certificates.find((each) => each !== last && !isSelfSigned(last) && isIssuedBy(last, each))
    if (!issuer) break
    last = issuer
  }
  if (isSelfSigned(last)) return `it leads to ${nameOf(last)}, which is not in the file of authorities`
  const issuer = last.issuer?.replaceAll('\n', ', ')
  return `its issuer ${issuer} is neither in the file of authorities nor, as an intermediate, in this file`
}
