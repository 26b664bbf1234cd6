// Which certificates a node can work with, and how files that are replaced come into use.

import assert from 'node:assert/strict'
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readdir, readFile, stat, unlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import { CertificateFault, checkCertificates, type TlsContents } from '../../lib/mesh/nats/certificate-check.ts'
import { Certificates } from '../../lib/mesh/nats/certificates.ts'
import { Authority, type CertificateOptions, type TlsFiles } from '../support/authority.ts'
import { temporaryDirectory } from '../support/cluster.ts'
import { fakeSystemTimers } from '../support/elapsed.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR

/** A key on a curve that the servers do not support, and its certificate, which is its own authority. */
const SECP256K1 = {
  certificate: `-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUOoUaN/x0ET+R25TorKG911KkoDswCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCazEwIBcNMjYxMTI3MDM1NTIwWhgPMjEyNjExMDMwMzU1MjBa
MA0xCzAJBgNVBAMMAmsxMFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEDk7bFeySa+Tl
pW9+hDj+EJx9alOEq94WJe1Ghzg+XA3jlO4B2cPWVLtw2uK8c9MasOF+V4233OGV
A80e9Q9ymKNkMGIwHQYDVR0OBBYEFE1gSGDchk71ROqdYnF9qgpKMLaeMB8GA1Ud
IwQYMBaAFE1gSGDchk71ROqdYnF9qgpKMLaeMA8GA1UdEwEB/wQFMAMBAf8wDwYD
VR0RBAgwBocEfwAAATAKBggqhkjOPQQDAgNHADBEAiBAA9bPqKMMyrxV+xIicHbb
0Y5SJC0TJfAxx/sPhurgvQIgCJeZyFaZ9uuw+msn6JDyQL2/Awne1Hs9XNq249V2
M5A=
-----END CERTIFICATE-----
`,
  privateKey: `-----BEGIN EC PRIVATE KEY-----
MHQCAQEEIP3Ndw45Zb8pwISP+/x2MDdK60ker5Cs2MZPf9VuyQ/boAcGBSuBBAAK
oUQDQgAEDk7bFeySa+TlpW9+hDj+EJx9alOEq94WJe1Ghzg+XA3jlO4B2cPWVLtw
2uK8c9MasOF+V4233OGVA80e9Q9ymA==
-----END EC PRIVATE KEY-----
`,
}

const authority = await Authority.create('throw-away authority', { notAfter: new Date(Date.now() + 1_000 * DAY) })
const [directory, removeDirectory] = await temporaryDirectory()
after(removeDirectory)

async function contentsOf({ certificate, certificateAuthority, privateKey }: TlsFiles): Promise<TlsContents> {
  const [first, second, third] = await Promise.all(
    [certificate, certificateAuthority, privateKey].map((path) => readFile(path)),
  )
  return { certificate: first!, certificateAuthority: second!, privateKey: third! }
}

let issued = 0
const issue = async (options: CertificateOptions = {}, issuer = authority) =>
  contentsOf(await issuer.issue(join(directory, `${issued++}`), 'node1', options))

const check = (contents: TlsContents, { localHost = '127.0.0.1', insecure = false, now = Date.now() } = {}) =>
  checkCertificates(contents, { localHost, insecure, now })

const text = (content: Buffer) => content.toString('latin1')
const pem = (...parts: (string | Buffer)[]) => Buffer.concat(parts.map((part) => Buffer.from(part)))

describe('certificates that a node can work with', () => {
  let good: TlsContents
  let intermediate: Authority
  before(async () => {
    good = await issue()
    intermediate = await authority.intermediate('intermediate')
  })

  it('are those of an authority, for servers and clients', () => {
    assert.equal(check(good).length, 2)
    assert.equal(check(good, { localHost: 'localhost' }).length, 2)
  })

  it('may have no extended key usage', async () => {
    assert.equal(check(await issue({ usage: undefined })).length, 2)
  })

  it('may have comments, Windows line ends, and other authorities in the file', async () => {
    const other = await Authority.create('another')
    const crlf = (content: Buffer) => Buffer.from(text(content).replace(/\r?\n/g, '\r\n'))
    const certificateAuthority = pem('Subject: CN=another\n', other.pem, good.certificateAuthority)
    check({ certificate: crlf(good.certificate), certificateAuthority, privateKey: crlf(good.privateKey) })
  })

  it('may be issued by an intermediate that is in one of the files', async () => {
    const contents = await issue({ intermediates: intermediate.pem, trusted: authority.pem }, intermediate)
    assert.equal(check(contents).length, 3)
    const root = await Authority.create('root of both')
    const between = await root.intermediate('between')
    assert.equal(check(await issue({ trusted: root.pem + between.pem }, between)).length, 2)
    assert.equal(
      check(await issue({ trusted: between.pem }, between)).length,
      2,
      'an intermediate may be trusted alone',
    )
  })

  it('may be signed by themselves when the file of authorities has them', () => {
    const { certificate, privateKey } = good
    assert.ok(new X509Certificate(certificate).checkPrivateKey(createPrivateKey(privateKey)))
    check({ ...good, certificateAuthority: pem(authority.pem, certificate) })
  })

  it('need no matching name, and no usage for servers, when servers are not verified', async () => {
    check(await issue({ names: [] }), { insecure: true })
    check(await issue({ usage: { clientAuth: true } }), { insecure: true })
  })

  const refused: [name: string, contents: () => TlsContents | Promise<TlsContents>, kind: string, reason: RegExp][] = [
    [
      'for servers only',
      () => issue({ usage: { serverAuth: true } }),
      'certificate',
      /not include clients \(clientAuth\)/,
    ],
    [
      'for clients only',
      () => issue({ usage: { clientAuth: true } }),
      'certificate',
      /not include servers \(serverAuth\)/,
    ],
    [
      'whose issuer is for servers only',
      async () => {
        const limited = await authority.intermediate('limited', { usage: { serverAuth: true } })
        return issue({ intermediates: limited.pem, trusted: authority.pem }, limited)
      },
      'certificate',
      /the issuer CN=limited: .*clientAuth/,
    ],
    [
      'whose intermediate is missing',
      () => issue({ trusted: authority.pem }, intermediate),
      'certificate',
      /its issuer CN=intermediate is neither in the file of authorities nor, as an intermediate, in this file/,
    ],
    [
      'of another authority',
      async () => issue({ trusted: (await Authority.create('stranger')).pem }),
      'certificate',
      /its issuer CN=throw-away authority is neither/,
    ],
    [
      'of another authority with the same name',
      async () => issue({ trusted: (await Authority.create()).pem }),
      'certificate',
      /its issuer CN=throw-away authority is neither/,
    ],
    [
      'whose chain ends at an authority that is not trusted',
      async () => issue({ intermediates: authority.pem, trusted: (await Authority.create('stranger')).pem }),
      'certificate',
      /leads to CN=throw-away authority, which is not in the file of authorities/,
    ],
    [
      'whose issuer has expired',
      async () => {
        const old = await authority.intermediate('old', { notAfter: new Date(Date.now() - HOUR) })
        return issue({ intermediates: old.pem, trusted: authority.pem }, old)
      },
      'certificate',
      /CN=old: it has expired on/,
    ],
    ['without names', () => issue({ names: [] }), 'certificate', /it has no subjectAltName/],
    [
      'without the name of the local hub',
      () => issue({ names: ['10.0.0.1', 'node1.example'] }),
      'certificate',
      /not valid for 127\.0\.0\.1, by which the local leaf .*10\.0\.0\.1/,
    ],
    ['that have expired', () => issue({ notAfter: new Date(Date.now() - 1) }), 'certificate', /it has expired on/],
    [
      'that are not valid yet',
      () => issue({ notBefore: new Date(Date.now() + HOUR) }),
      'certificate',
      /not valid before/,
    ],
    [
      'with the key of another one',
      async () => ({ ...good, privateKey: (await issue()).privateKey }),
      'privateKey',
      /does not belong to the certificate/,
    ],
    [
      'in the wrong order',
      async () => {
        const { certificate, ...others } = await issue({ trusted: authority.pem }, intermediate)
        return { ...others, certificate: pem(intermediate.pem, certificate) }
      },
      'certificate',
      /wrong order: that of the node is number 2, it must be the first/,
    ],
    [
      'with an encrypted key',
      () => {
        const key = createPrivateKey(good.privateKey)
        const privateKey = key.export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' })
        return { ...good, privateKey: Buffer.from(privateKey) }
      },
      'privateKey',
      /the key is encrypted/,
    ],
    [
      'with an encrypted key of the older format',
      () => {
        const key = createPrivateKey(good.privateKey)
        const privateKey = key.export({ type: 'pkcs1', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' })
        return { ...good, privateKey: Buffer.from(privateKey) }
      },
      'privateKey',
      /the key is encrypted/,
    ],
    [
      'with a byte order mark',
      () => ({ ...good, certificate: pem(Buffer.from([0xef, 0xbb, 0xbf]), good.certificate) }),
      'certificate',
      /byte order mark/,
    ],
    [
      'in UTF-16',
      () => ({ ...good, privateKey: pem(Buffer.from([0xff, 0xfe]), Buffer.from(text(good.privateKey), 'utf16le')) }),
      'privateKey',
      /byte order mark/,
    ],
    [
      'in DER format',
      () => ({ ...good, certificate: Buffer.from(new X509Certificate(good.certificate).raw) }),
      'certificate',
      /DER format/,
    ],
    [
      'with a key in DER format',
      () => ({ ...good, privateKey: createPrivateKey(good.privateKey).export({ type: 'pkcs8', format: 'der' }) }),
      'privateKey',
      /DER format/,
    ],
    [
      'that are a key',
      () => ({ ...good, certificate: good.privateKey }),
      'certificate',
      /no certificate, only RSA PRIVATE KEY/,
    ],
    [
      'with a certificate as key',
      () => ({ ...good, privateKey: good.certificate }),
      'privateKey',
      /no complete private key/,
    ],
    ['that are empty', () => ({ ...good, certificate: Buffer.alloc(0) }), 'certificate', /it is empty/],
    [
      'that end in the middle',
      () => ({ ...good, certificate: good.certificate.subarray(0, 300) }),
      'certificate',
      /ends within a certificate/,
    ],
    [
      'whose file of authorities ends in the middle',
      () => ({ ...good, certificateAuthority: pem(authority.pem, authority.pem.slice(0, 300)) }),
      'certificateAuthority',
      /ends within a certificate/,
    ],
    [
      'whose key ends in the middle',
      () => ({ ...good, privateKey: good.privateKey.subarray(0, 300) }),
      'privateKey',
      /no complete private key/,
    ],
    [
      'with bytes that are damaged',
      () => ({ ...good, certificate: Buffer.from(text(good.certificate).replace('MII', 'AAA')) }),
      'certificate',
      /certificate 1 in it cannot be read/,
    ],
    [
      'without an authority',
      () => ({ ...good, certificateAuthority: good.certificate }),
      'certificateAuthority',
      /no certificate of an authority/,
    ],
    [
      'with a key that the servers do not support',
      () => ({
        certificate: Buffer.from(SECP256K1.certificate),
        certificateAuthority: Buffer.from(SECP256K1.certificate),
        privateKey: Buffer.from(SECP256K1.privateKey),
      }),
      'privateKey',
      // The second one is of BoringSSL, on which Bun runs: it knows no other curves.
      /P-256, P-384 and P-521, not secp256k1|public key routines/,
    ],
  ]
  for (const [name, contents, kind, reason] of refused)
    it(`are not those ${name}`, async () => {
      const found = await contents()
      assert.throws(
        () => check(found),
        (error: unknown) => {
          assert.ok(error instanceof CertificateFault, String(error))
          assert.match(error.message, reason)
          assert.equal(error.kind, kind)
          return true
        },
      )
    })
})

type Line = { level: string; message: string }

/** Opened certificates on files that the test replaces, with a mocked clock. */
async function scene(t: TestContext, options: CertificateOptions = {}) {
  const [directory, remove] = await temporaryDirectory()
  const longer = { notAfter: new Date(Date.now() + 100 * DAY) }
  const files = await authority.issue(join(directory, 'files'), 'node1', { ...longer, ...options })
  fakeSystemTimers(t, 'setInterval', 'Date')
  const lines: Line[] = []
  const log = (level: string) => (_: object, message: string) => void lines.push({ level, message })
  const state = { reloads: 0, failures: 0, changes: [] as (string | undefined)[] }
  const certificates = await Certificates.open({
    tls: { ...files, insecure: false, verify: true },
    directory,
    localHost: '127.0.0.1',
    logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    reload: async () => {
      state.reloads++
      if (state.failures-- > 0) throw new Error('not confirmed')
    },
    changed: (rejection) => void state.changes.push(rejection),
  })
  t.after(async () => {
    await certificates.close()
    await remove()
  })
  const renew = (options: CertificateOptions = {}) =>
    authority.issue(join(directory, 'files'), 'node1', { ...longer, ...options })
  /** Some polls, until their file operations are done. */
  const poll = async (count = 1) => {
    for (let index = 0; index < count; index++) {
      t.mock.timers.tick(2_000)
      while (certificates.polling) await setImmediate()
    }
  }
  const inUse = async () => text(await readFile(certificates.files.certificate))
  const onDisk = async () => text(await readFile(files.certificate))
  return { directory, files, lines, state, certificates, renew, poll, inUse, onDisk }
}

describe('certificates that are replaced', () => {
  it('are used as private copies, which are removed at the end', async (t) => {
    const { directory, certificates, inUse, onDisk } = await scene(t)
    assert.equal(await inUse(), await onDisk())
    assert.equal((await stat(certificates.files.privateKey)).mode & 0o777, 0o600)
    assert.equal((await stat(join(directory, 'tls'))).mode & 0o777, 0o700)
    await certificates.close()
    await assert.rejects(stat(join(directory, 'tls')), { code: 'ENOENT' })
  })

  it('come into use once, and are reported', async (t) => {
    const { directory, state, renew, poll, inUse, onDisk, lines } = await scene(t)
    for (let count = 1; count <= 3; count++) {
      await renew()
      await poll(3)
      assert.equal(await inUse(), await onDisk())
      assert.deepEqual([state.reloads, state.changes.length], [count, count])
    }
    assert.deepEqual(state.changes, [undefined, undefined, undefined])
    assert.equal(lines.filter(({ message }) => message === 'certificates replaced').length, 3)
    assert.deepEqual((await readdir(join(directory, 'tls'))).sort(), ['current', 'v4'], 'no older copies')
  })

  it('are read by the servers again until they confirm it', async (t) => {
    const { state, renew, poll, lines } = await scene(t)
    state.failures = 2
    await renew()
    await poll(2)
    assert.deepEqual([state.reloads, state.changes], [2, []])
    assert.deepEqual(lines, [{ level: 'error', message: 'new certificates not in use yet, retrying' }])
    await poll(2)
    assert.deepEqual([state.reloads, state.changes], [3, [undefined]])
  })

  it('stay out of use when they are not usable, which is reported once', async (t) => {
    const { files, state, certificates, renew, poll, inUse, lines } = await scene(t)
    const before = await inUse()
    await renew({ usage: { serverAuth: true } })
    await poll(5)
    assert.equal(await inUse(), before)
    assert.equal(state.reloads, 0)
    assert.equal(state.changes.length, 1)
    assert.match(state.changes[0]!, /clustering\.tls\.certificate: .*certificate\.pem .*clientAuth/)
    assert.equal(lines.length, 1)
    assert.match(lines[0]!.message, /invalid certificates on disk, keeping the previous ones: .*clientAuth/)
    await unlink(files.privateKey)
    await poll(3)
    assert.match(state.changes[1]!, /clustering\.tls\.privateKey: .*ENOENT/)
    await renew()
    await poll()
    assert.deepEqual(state.changes.slice(2), [undefined])
    assert.deepEqual(certificates.warnings, [])
  })

  it('are not reported while an operator replaces one file after the other', async (t) => {
    const { files, state, renew, poll } = await scene(t)
    const key = await readFile(files.privateKey)
    await renew()
    const next = await readFile(files.privateKey)
    await writeFile(files.privateKey, key)
    await poll()
    await writeFile(files.privateKey, next)
    await poll()
    assert.deepEqual(state.changes, [undefined])
  })

  it('come into use as soon as they are valid', async (t) => {
    const { state, renew, poll } = await scene(t)
    await renew({ notBefore: new Date(Date.now() + 10_000) })
    await poll(3)
    assert.match(state.changes[0]!, /not valid before/)
    await poll(4)
    assert.deepEqual(state.changes.slice(1), [undefined])
  })

  it('are announced daily from 14 days before they expire, and the new ones are not', async (t) => {
    const { certificates, lines, renew, poll } = await scene(t, { notAfter: new Date(Date.now() + 15.5 * DAY) })
    const announced = () => lines.filter(({ message }) => /expire/.test(message)).map(({ level }) => level)
    await poll()
    assert.deepEqual([announced(), certificates.warnings], [[], []])
    t.mock.timers.setTime(Date.now() + 2 * DAY)
    await poll(3)
    assert.deepEqual(announced(), ['warn'])
    assert.match(certificates.warnings[0]!, /^The local certificate expires on \d{4}-/)
    t.mock.timers.setTime(Date.now() + 1.1 * DAY)
    await poll(3)
    assert.deepEqual(announced(), ['warn', 'warn'])
    t.mock.timers.setTime(Date.now() + 20 * DAY)
    await poll(3)
    assert.deepEqual(announced(), ['warn', 'warn', 'error'])
    assert.match(certificates.warnings[0]!, /^The local certificate has expired on/)
    await renew()
    await poll()
    assert.deepEqual([announced().length, certificates.warnings], [3, []])
  })
})
