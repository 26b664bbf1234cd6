// Published security advisories of nats-server that this module's configuration exposes.
//
// Sources, read in November 2026: the advisories of the NATS project (github.com/nats-io/advisories, 2022-01 to 2026-28, last
// update 29 June 2026), their CVE records, and the fixing commits in nats-server's repository up to 2.14.5. Fixes that were
// published without an advisory are not listed.
//
// Left out, because no generated configuration meets their condition:
// - WebSocket, MQTT: CVE-2026-27571, -27889, -33215, -33216, -33217, -33219, 2026-21, -22, -25, -26, -27.
// - JWT, operators, nkeys, auth callout, mapped certificates: CVE-2023-46129, CVE-2026-33248, 2026-23.
// - `no_auth_user`, or a system account alone: CVE-2023-47090, 2026-16, 2026-24.
// - Subscribe permissions of users, the header `Nats-Request-Info`: CVE-2026-33223, -33246, -33249, 2026-17, 2026-18.
// - Passwords on the command line, a monitoring port, several authorities in one server: CVE-2026-33247, CVE-2025-68121.
// - JetStream administration across accounts: CVE-2022-42708, CVE-2025-30215, CVE-2026-33222. The leaf denies these calls to other
//   nodes (`deny_imports`, and exports of reading calls only); `rights.test.ts` verifies it.
// - Import cycles, which the generated accounts do not have: CVE-2022-42709.

import type { Logger } from '../../observe/logger.ts'
import type { ServerSettings } from './configuration.ts'
import { isAtLeast, type Version, versionText } from './versions.ts'

export type Advisory = {
  id: string
  /** The number of the advisory at advisories.nats.io. */
  note: string
  /** Ranges of affected versions: the first one, and the first one with the fix. */
  affected: readonly (readonly [from: Version, before: Version])[]
  /** The listeners that an attacker can use. */
  ports: readonly ('leafnodes' | 'cluster')[]
  /** What an attacker needs beyond reaching the port (and a certificate, with `tls.verify`). */
  needs: 'nothing' | 'password'
  /** Exposed only while leafnode connections may be compressed. */
  condition?: 'leafCompression'
  /** The effect of an attack. */
  exposure: string
}

export const ADVISORIES: readonly Advisory[] = [
  {
    // The advisory names all of version 2. Leafnode compression, which it needs, began with 2.10; 2.9.10 survives it.
    id: 'CVE-2026-29785',
    note: '2026-04',
    affected: [
      [
        [2, 10, 0],
        [2, 11, 14],
      ],
      [
        [2, 12, 0],
        [2, 12, 5],
      ],
    ],
    ports: ['leafnodes'],
    needs: 'nothing',
    condition: 'leafCompression',
    exposure: 'A subscription before authentication crashes the hub.',
  },
  {
    // The advisory does not name compression. Without it the hub demands CONNECT first: 2.10.27 survives.
    id: 'CVE-2026-33218',
    note: '2026-10',
    affected: [
      [
        [2, 10, 0],
        [2, 11, 15],
      ],
      [
        [2, 12, 0],
        [2, 12, 6],
      ],
    ],
    ports: ['leafnodes'],
    needs: 'nothing',
    condition: 'leafCompression',
    exposure: 'An error message before authentication crashes the hub.',
  },
  {
    id: 'CVE-2026-58250',
    note: '2026-19',
    affected: [
      [
        [2, 10, 0],
        [2, 11, 17],
      ],
      [
        [2, 12, 0],
        [2, 12, 8],
      ],
    ],
    ports: ['leafnodes'],
    needs: 'nothing',
    condition: 'leafCompression',
    exposure: 'A second INFO before authentication crashes the hub.',
  },
  {
    // A leaf publishes the event of a traced message to any subject, `deny_imports` or not: in the system account also to the call
    // that removes all streams of an account. Measured: 2.11.17, 2.12.11 and 2.14.2 lose them; 2.12.12, 2.12.15 and 2.15.1 do not.
    // Message tracing began with 2.11, whose branch has no fix.
    id: 'CVE-2026-58254',
    note: '2026-20',
    affected: [
      [
        [2, 11, 0],
        [2, 12, 12],
      ],
      [
        [2, 14, 0],
        [2, 14, 3],
      ],
    ],
    ports: ['leafnodes', 'cluster'],
    needs: 'password',
    exposure: 'A message with a trace header deletes the streams of other nodes.',
  },
  {
    // Measured: 2.9.10, 2.10.27, 2.11.17, 2.12.11 and 2.14.2 crash, often with the servers of other nodes; 2.12.12, 2.12.15 and
    // 2.15.1 do not. Branches below 2.12 have no fix.
    id: 'GHSA-q59r-vq66-pxc2',
    note: '2026-28',
    affected: [
      [
        [2, 9, 0],
        [2, 12, 12],
      ],
      [
        [2, 14, 0],
        [2, 14, 3],
      ],
    ],
    ports: ['leafnodes', 'cluster'],
    needs: 'password',
    exposure: 'One request for a list of connections crashes hubs and leaves.',
  },
]

/**
 * 2.11 ended with 2.11.17 in April 2026: known holes stay open below 2.12. Two branches get patches at a time
 * (docs.nats.io/release-notes), so 2.12 ended in September 2026, when 2.15.0 came out. Its last versions have all fixes that are
 * published, and cause no warning.
 */
const OLDEST_MAINTAINED = [2, 12, 0] as const
/** The first version of each maintained branch with all fixes. */
const RECOMMENDED = '2.14.3 or later, or 2.12.12 or later of 2.12'

/** False for versions of branches in which known holes stay open. */
export const isMaintained = (version: Version): boolean => isAtLeast(version, OLDEST_MAINTAINED)

/** The parts of a hub's configuration that exposure depends on. */
export type ConfigurationFacts = {
  /** Other machines reach the ports. */
  network: boolean
  /** Leafnode connections need a certificate of the cluster's authority. Routes need one whenever TLS is on. */
  verify: boolean
  tls: boolean
  leafCompression: boolean
}

/** The facts of the configuration that these settings give: compression of leafnode connections is always off. */
export const factsOf = ({ listen, tls }: Pick<ServerSettings, 'listen' | 'tls'>): ConfigurationFacts => ({
  network: !/^(127\.|localhost$|\[?::1\]?$)/.test(listen),
  tls: tls !== undefined,
  verify: tls?.verify === true,
  leafCompression: false,
})

/** The advisories that affect this version in this configuration. */
export const exposuresOf = (version: Version, facts: ConfigurationFacts): Advisory[] =>
  ADVISORIES.filter(
    ({ affected, condition }) =>
      (condition === undefined || facts[condition]) &&
      affected.some(([from, before]) => isAtLeast(version, from) && !isAtLeast(version, before)),
  )

/** Describes who can attack. */
export function attackerOf({ ports, needs }: Advisory, { network, tls, verify }: ConfigurationFacts): string {
  const where = network ? 'anyone who reaches the port' : 'a process on this machine'
  // With a password alone, an attacker connects as a leaf unless that needs a certificate.
  const certificate = ports.includes('leafnodes') ? verify : tls
  const what = [
    ...(certificate ? ['a certificate of the authority'] : []),
    ...(needs === 'password' ? ["the cluster's password"] : []),
  ]
  return what.length > 0 ? `${where} with ${what.join(' and ')}` : where
}

/** Known exposures of the running version; logs a warning when they, or the version, change. */
export class ExposureReport {
  readonly #logger: Logger
  /** One sentence each; empty when nothing is known. */
  warnings: readonly string[] = []
  #reported = ''

  constructor(logger: Logger) {
    this.#logger = logger
  }

  /** Call it before each start, with the version and the settings of the servers. */
  update(version: Version, settings: ServerSettings): void {
    const facts = factsOf(settings)
    const exposures = exposuresOf(version, facts)
    const maintained = isMaintained(version)
    const name = versionText(version)
    this.warnings = [
      ...exposures.map(
        (advisory) => `${advisory.id}: ${advisory.exposure} Exposed to: ${attackerOf(advisory, facts)}.`,
      ),
      ...(maintained ? [] : [`nats-server ${version[0]}.${version[1]} gets no security fixes any more.`]),
    ]
    const report = [name, ...this.warnings].join('\n')
    if (report === this.#reported) return
    this.#reported = report
    if (this.warnings.length === 0) return
    this.#logger.warn(
      {
        version: name,
        advisories: exposures.map(({ id }) => id),
        warnings: this.warnings,
        hint: `Install nats-server ${RECOMMENDED}. See "Which nats-server" in the README.`,
      },
      'this nats-server version has known security holes',
    )
  }
}
