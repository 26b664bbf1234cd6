// The options of `ClusterManager.open`: meaning, unit, range, default and consequence of each, and their checks.

import { clusterError } from '../errors.ts'
import { type ClusterEvents, type EventName, eventNames } from '../events/events.ts'
import type { Host } from '../host/host.ts'
import type { Mesh } from '../mesh/mesh.ts'
import { type Logger, safeLogger, silentLogger } from '../observe/logger.ts'
import type { Meter } from '../observe/meter.ts'
import { NodeLogger } from '../observe/node-logger.ts'
import { suggestion } from '../util/suggestion.ts'

export type ClusterOptions = {
  /** Path of the host's YAML file. A missing file is created, with a `clustering` section. Watched for edits while open. */
  configFile: string
  /** The database. */
  host: Host
  /** Password of the cluster user, or a function that fetches it, at `open` and for `rotatePassword`. Required while clustering is enabled; never logged. */
  password?: string | (() => Promise<string>) | undefined
  /** A mesh other than NATS. No server runs then, and `password`, `natsServer` and `serverEnvironment` are ignored. */
  mesh?: Mesh | undefined
  /** Path of the nats-server binary. Default: the environment variable NATS_SERVER, then the PATH. */
  natsServer?: string | undefined
  /** Environment variables for both nats-server processes, such as GOMEMLIMIT and GOMAXPROCS. Of the environment of this process they get PATH only. */
  serverEnvironment?: Readonly<Record<string, string>> | undefined
  /** Has the methods of pino. Default: silent. */
  logger?: Logger | undefined
  /** Listeners that are registered before `open` resolves. They get `progress` while it runs, and all other events right after it. */
  listeners?: { readonly [Name in EventName]?: (...args: ClusterEvents[Name]) => void }
  /** An OpenTelemetry meter, or an object with its methods, that collects the metrics. Default: none. */
  meter?: Meter | undefined
  /**
   * Gaps, lost checkpoints and tables that were created again are repaired: all rows are copied from the source. Default true. With false
   * they are only reported, and stay. No effect when the source serves no rows.
   */
  repair?: boolean | undefined
  /** ms for a remote node to answer, 100 to 600,000, default 5,000. An operation waits this long at most for each request. */
  requestTimeout?: number
  /** ms that `publish` waits for the local leaf, 100 to 600,000, default 10,000. Then it rejects publish_timeout; the transaction may still be sent. */
  publishTimeout?: number
  /**
   * ms for each call of a host method, 100 to 600,000, default 30,000. Then the call counts as failed, and the host's signal aborts. Set it
   * above the longest transaction of the database: a call that is late may still commit, and its table waits for it.
   */
  hostTimeout?: number
  /** ms that the clock of a remote node may be ahead of the local one, 0 to 86,400,000, default 300,000. Transactions with a later timestamp are quarantined. */
  maxClockDrift?: number
  /**
   * ms for which the database keeps tombstones at least, 60,000 to 315,360,000,000 (ten years), default 30 days: see `ClusterManager.tombstoneLimit`.
   * A node that was away for longer may hold deleted rows: writes below the horizon of a table are ignored there, and reported.
   */
  tombstoneAge?: number
  /** Unacknowledged messages to the local leaf for each table, 1 to 1,024, default 4. A message has up to 256 transactions or 256 KiB; what arrives while this many are unacknowledged waits in memory, within `maxInFlight`. */
  publishWindow?: number
  /** Transactions read from the outbox and not yet acknowledged, 1 to 1,000,000, default 10,000. The rest waits in the outbox; without an outbox, `publish` rejects. */
  maxInFlight?: number
  /** The same in bytes, 1 to 2^31, default 64 MiB. A single transaction may exceed it. */
  maxInFlightBytes?: number
  /** Transactions in one call of `Host.apply`, 1 to 10,000, default 500. Twice as many are held in memory for each table. */
  maxBatch?: number
  /** The same in bytes of messages, 1 to 2^31, default 8 MiB. A single transaction may exceed it. */
  maxBatchBytes?: number
  /**
   * Attempts after which a transaction that the database refuses is quarantined automatically, 0 to 1,000,000, default 0: never. At most
   * 10 in a row, and only while the database accepts the new checkpoint. A low value may quarantine what a short fault refused.
   */
  maxApplyAttempts?: number
  /** Bytes of messages that all subscriptions together request and hold while they are applied, 1 MiB to 64 GiB, default 256 MiB. A single message may exceed it. Tables that catch up at the same time share it: less memory means smaller requests. */
  maxCatchUpBytes?: number
  /** Messages in quarantine, of all remote tables together, 0 to 1,000,000, default 1,000. When it is full, a subscription stalls at the next message. */
  maxQuarantined?: number
  /** The same in bytes of their files, 0 to 2^31, default 256 MiB. A file is a third larger than its message. */
  maxQuarantinedBytes?: number
}

const MEGABYTE_BYTES = 1024 * 1024
const DAY_MS = 86_400_000
/** A test compares this table with the documentation. */
export const bounds = {
  requestTimeout: { min: 100, max: 600_000, default: 5_000, what: 'ms for a remote node to answer a request' },
  publishTimeout: { min: 100, max: 600_000, default: 10_000, what: 'ms that `publish` waits for the local leaf' },
  hostTimeout: {
    min: 100,
    max: 600_000,
    default: 30_000,
    what: 'ms for the database to answer a call of a host method',
  },
  maxClockDrift: { min: 0, max: 86_400_000, default: 300_000, what: 'ms that the clock of a remote node may be ahead' },
  tombstoneAge: {
    min: 60_000,
    max: 3_650 * DAY_MS,
    default: 30 * DAY_MS,
    what: 'ms for which the database keeps tombstones at least: `cluster.tombstoneLimit()`',
  },
  publishWindow: {
    min: 1,
    max: 1_024,
    default: 4,
    what: 'unacknowledged messages to the local leaf for each table',
  },
  maxInFlight: {
    min: 1,
    max: 1_000_000,
    default: 10_000,
    what: 'transactions read from the outbox, or accepted without one, and not yet acknowledged',
  },
  maxInFlightBytes: { min: 1, max: 2 ** 31, default: 64 * MEGABYTE_BYTES, what: 'the same in bytes' },
  maxBatch: { min: 1, max: 10_000, default: 500, what: 'transactions in one call of `Host.apply`' },
  maxBatchBytes: { min: 1, max: 2 ** 31, default: 8 * MEGABYTE_BYTES, what: 'the same in bytes' },
  maxApplyAttempts: {
    min: 0,
    max: 1_000_000,
    default: 0,
    what: 'attempts to apply a transaction before it is quarantined; 0: no limit',
  },
  maxCatchUpBytes: {
    min: MEGABYTE_BYTES,
    max: 2 ** 36,
    default: 256 * MEGABYTE_BYTES,
    what: 'bytes of messages that all subscriptions together hold',
  },
  maxQuarantined: { min: 0, max: 1_000_000, default: 1_000, what: 'messages in quarantine' },
  maxQuarantinedBytes: { min: 0, max: 2 ** 31, default: 256 * MEGABYTE_BYTES, what: 'the same in bytes' },
} as const

type NumberName = keyof typeof bounds
const numberNames = Object.keys(bounds) as NumberName[]

export type CheckedOptions = Omit<ClusterOptions, NumberName | 'logger' | 'repair'> &
  Record<NumberName, number> & { logger: NodeLogger; repair: boolean }

const HOST_METHODS = [
  'info',
  'lastTimestamp',
  'describe',
  'createTable',
  'apply',
  'loadCheckpoint',
  'deleteCheckpoint',
] as const
const OPTION_NAMES: readonly string[] = [
  'configFile',
  'host',
  'password',
  'mesh',
  'natsServer',
  'serverEnvironment',
  'logger',
  'listeners',
  'meter',
  'repair',
  ...numberNames,
]
const LOGGER_METHODS = ['debug', 'info', 'warn', 'error'] as const
const METER_METHODS = [
  'createObservableCounter',
  'createObservableGauge',
  'createHistogram',
  'addBatchObservableCallback',
  'removeBatchObservableCallback',
] as const
const OUTBOX_METHODS = ['readOutbox', 'confirmPublished', 'publishedPosition'] as const

const received = (value: unknown) => (typeof value === 'string' ? `'${value}'` : String(value))

const invalidOption = (name: string, expected: string, value: unknown) =>
  clusterError('invalid_option', `Option '${name}' must be ${expected}, received ${received(value)}`)

function checkMethods(option: string, object: object, methods: readonly string[]): void {
  for (const name of methods) {
    const method = (object as Record<string, unknown>)[name]
    if (typeof method !== 'function') throw invalidOption(`${option}.${name}`, 'a function', method)
  }
}

function checkHost(host: unknown): void {
  if (typeof host !== 'object' || host === null) throw invalidOption('host', 'a Host', host)
  checkMethods('host', host, HOST_METHODS)
  const outbox = OUTBOX_METHODS.filter((name) => (host as Partial<Host>)[name] !== undefined)
  if (outbox.length > 0 && outbox.length < OUTBOX_METHODS.length) {
    const expected = `an object with all of ${OUTBOX_METHODS.join(', ')}, or with none of them`
    throw invalidOption('host', expected, `only ${outbox.join(', ')}`)
  }
}

function checkServerEnvironment(variables: object): void {
  for (const [name, value] of Object.entries(variables)) {
    if (!/^[A-Za-z_]\w*$/.test(name))
      throw invalidOption('serverEnvironment', 'an object of environment variables', name)
    // The value may be a secret: only its type is reported.
    if (typeof value !== 'string' || value.includes('\0'))
      throw invalidOption(`serverEnvironment.${name}`, 'a string without null characters', typeof value)
  }
}

function checkListeners(listeners: object): void {
  for (const [event, listener] of Object.entries(listeners)) {
    if (!(eventNames as readonly string[]).includes(event))
      throw invalidOption('listeners', 'an object of listeners by event name', event)
    if (typeof listener !== 'function') throw invalidOption(`listeners.${event}`, 'a function', listener)
  }
}

function checkNumber(name: NumberName, value: number): number {
  const { min, max } = bounds[name]
  if (!Number.isInteger(value) || value < min || value > max)
    throw invalidOption(name, `an integer from ${min} to ${max}`, value)
  return value
}

/** Fills in the defaults. Throws invalid_option with the name of the option and the value received. */
export function checkOptions(options: ClusterOptions = {} as ClusterOptions): CheckedOptions {
  const unknown = Object.keys(options).find((name) => !OPTION_NAMES.includes(name))
  if (unknown !== undefined)
    throw clusterError('invalid_option', `Unknown option '${unknown}'.${suggestion(unknown, OPTION_NAMES)}`)
  const { configFile, host, password, logger, meter, repair = true } = options
  if (logger) checkMethods('logger', logger, LOGGER_METHODS)
  if (typeof configFile !== 'string' || configFile === '') throw invalidOption('configFile', 'a path', configFile)
  checkHost(host)
  if (password !== undefined && typeof password !== 'string' && typeof password !== 'function')
    throw invalidOption('password', 'a string or a function', typeof password)
  if (typeof repair !== 'boolean') throw invalidOption('repair', 'a boolean', repair)
  checkServerEnvironment(options.serverEnvironment ?? {})
  checkListeners(options.listeners ?? {})
  if (meter) checkMethods('meter', meter, METER_METHODS)
  const numbers = Object.fromEntries(
    numberNames.map((name) => [name, checkNumber(name, options[name] ?? bounds[name].default)]),
  ) as Record<NumberName, number>
  return { ...options, ...numbers, repair, logger: new NodeLogger(logger ? safeLogger(logger) : silentLogger) }
}
