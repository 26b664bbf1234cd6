// The security holes of nats-server that a configuration exposes: the boundaries of each entry, and what is logged.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ADVISORIES,
  attackerOf,
  type ConfigurationFacts,
  ExposureReport,
  exposuresOf,
  factsOf,
  isMaintained,
} from '../../lib/mesh/nats/advisories.ts'
import type { ServerSettings } from '../../lib/mesh/nats/configuration.ts'
import type { Logger } from '../../lib/observe/logger.ts'

const open: ConfigurationFacts = { network: true, tls: false, verify: false, leafCompression: true }
const uncompressed = { ...open, leafCompression: false }
type Version = readonly [number, number, number]
const ids = (version: Version, facts = open) => exposuresOf(version, facts).map(({ id }) => id)

const compression = ['CVE-2026-29785', 'CVE-2026-33218', 'CVE-2026-58250']
const trace = 'CVE-2026-58254'
const connections = 'GHSA-q59r-vq66-pxc2'

test('ids are well-formed and unique, ranges are ascending', () => {
  const all = ADVISORIES.map(({ id }) => id)
  assert.equal(new Set(all).size, all.length)
  assert.equal(new Set(ADVISORIES.map(({ note }) => note)).size, all.length)
  for (const { id, note, affected, exposure } of ADVISORIES) {
    assert.match(id, /^(CVE-20\d\d-\d{4,}|GHSA(-[2-9cfghjmpqrvwx]{4}){3})$/)
    assert.match(note, /^20\d\d-\d\d$/)
    assert.match(exposure, /^[A-Z].*\.$/)
    const numbers = affected.flat().map(([major, minor, patch]) => (major * 1_000 + minor) * 1_000 + patch)
    assert.ok(numbers.length > 0)
    assert.deepEqual(
      numbers,
      [...new Set(numbers)].toSorted((a, b) => a - b),
    )
  }
})

test('the last affected and the first fixed version of each branch', () => {
  const cases: [id: string, affected: Version, unaffected: Version][] = [
    ['CVE-2026-29785', [2, 10, 0], [2, 9, 25]],
    ['CVE-2026-29785', [2, 11, 12], [2, 11, 14]],
    ['CVE-2026-29785', [2, 12, 4], [2, 12, 5]],
    ['CVE-2026-33218', [2, 10, 0], [2, 9, 25]],
    ['CVE-2026-33218', [2, 11, 14], [2, 11, 15]],
    ['CVE-2026-33218', [2, 12, 5], [2, 12, 6]],
    ['CVE-2026-58250', [2, 10, 0], [2, 9, 25]],
    ['CVE-2026-58250', [2, 11, 16], [2, 11, 17]],
    ['CVE-2026-58250', [2, 12, 7], [2, 12, 8]],
    [trace, [2, 11, 0], [2, 10, 29]],
    [trace, [2, 12, 11], [2, 12, 12]],
    [trace, [2, 14, 2], [2, 14, 3]],
    [connections, [2, 9, 0], [2, 8, 4]],
    [connections, [2, 12, 11], [2, 12, 12]],
    [connections, [2, 14, 2], [2, 14, 3]],
  ]
  for (const [id, affected, unaffected] of cases) {
    assert.ok(ids(affected).includes(id), `${id} affects ${affected.join('.')}`)
    assert.ok(!ids(unaffected).includes(id), `${id} does not affect ${unaffected.join('.')}`)
  }
  // A new boundary in the table needs a line above.
  assert.equal(
    new Set(cases.map(([id, , unaffected]) => `${id} ${unaffected}`)).size,
    ADVISORIES.flatMap(({ affected }) => affected).length + ADVISORIES.length,
  )
})

test('exposures of the versions in use', () => {
  assert.deepEqual(ids([2, 9, 10]), [connections])
  assert.deepEqual(ids([2, 10, 27]), [...compression, connections])
  assert.deepEqual(ids([2, 10, 27], uncompressed), [connections])
  assert.deepEqual(ids([2, 11, 17]), [trace, connections])
  for (const version of [
    [2, 12, 12],
    [2, 12, 15],
    [2, 14, 3],
    [2, 14, 5],
    [2, 15, 0],
    [2, 15, 1],
    [3, 0, 0],
  ] as const)
    assert.deepEqual(ids(version), [], version.join('.'))
})

test('branches below 2.12 get no fixes', () => {
  assert.equal(isMaintained([2, 9, 25]), false)
  assert.equal(isMaintained([2, 11, 17]), false)
  assert.equal(isMaintained([2, 12, 0]), true)
  assert.equal(isMaintained([2, 15, 1]), true)
})

const settings = {
  node: 'node1',
  user: 'cluster_user',
  password: 'a password',
  clusterName: 'harperdb',
  listen: '127.0.0.1',
  ports: { cluster: 9932, leafNodes: 9931, hub: 9930, leaf: 9940 },
  logLevel: 'info',
  storeDirectory: '/tmp',
}
const hub = (more: object = {}): ServerSettings => ({ ...settings, ...more })
const files = { certificate: 'c', certificateAuthority: 'a', privateKey: 'k', insecure: false }

test('the facts are read from the generated configuration', () => {
  for (const listen of ['127.0.0.1', '127.0.0.2', '::1', 'localhost'])
    assert.equal(factsOf(hub({ listen })).network, false, listen)
  for (const listen of ['0.0.0.0', '::', '10.0.0.1', 'node1.example', 'localhost.example'])
    assert.equal(factsOf(hub({ listen })).network, true, listen)
  for (const verify of [true, false]) {
    const { tls, ...facts } = factsOf(hub({ tls: { ...files, verify } }))
    assert.deepEqual([tls, facts.verify], [true, verify])
  }
  assert.equal(factsOf(hub()).leafCompression, false)
})

test('description of the attacker', () => {
  const [panic, request] = [ADVISORIES[0]!, ADVISORIES.at(-1)!]
  assert.equal(attackerOf(panic, { ...open, network: false }), 'a process on this machine')
  assert.equal(attackerOf(panic, open), 'anyone who reaches the port')
  assert.equal(attackerOf(panic, { ...open, tls: true }), 'anyone who reaches the port')
  assert.equal(
    attackerOf(panic, { ...open, tls: true, verify: true }),
    'anyone who reaches the port with a certificate of the authority',
  )
  assert.equal(attackerOf(request, open), "anyone who reaches the port with the cluster's password")
  assert.equal(
    attackerOf(request, { ...open, tls: true, verify: true }),
    "anyone who reaches the port with a certificate of the authority and the cluster's password",
  )
})

test('one warning per version, none for a version without known holes', () => {
  const logged: { version: string; advisories: string[]; warnings: string[]; hint: string }[] = []
  const nothing = () => {}
  const warn = (details: object) => void logged.push(details as (typeof logged)[number])
  const logger: Logger = { debug: nothing, info: nothing, error: nothing, warn }
  const report = new ExposureReport(logger)
  assert.deepEqual(report.warnings, [])

  report.update([2, 9, 10], hub())
  report.update([2, 9, 10], hub())
  assert.equal(logged.length, 1)
  assert.deepEqual([logged[0]!.version, logged[0]!.advisories], ['2.9.10', [connections]])
  assert.equal(report.warnings.length, 2)
  assert.match(
    report.warnings[0]!,
    /^GHSA-q59r-vq66-pxc2: .* Exposed to: a process on this machine with the cluster's password\.$/,
  )
  assert.equal(report.warnings[1], 'nats-server 2.9 gets no security fixes any more.')
  assert.match(logged[0]!.hint, /2\.14\.3 or later/)
  assert.ok(!JSON.stringify(logged).includes(settings.password))

  report.update([2, 14, 2], hub())
  assert.deepEqual(
    logged.map(({ version }) => version),
    ['2.9.10', '2.14.2'],
  )
  report.update([2, 15, 1], hub())
  assert.deepEqual([logged.length, report.warnings], [2, []])
  report.update([2, 9, 10], hub())
  assert.equal(logged.length, 3)
})
