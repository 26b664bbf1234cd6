// What `ClusterManager.open` takes: each option's meaning, unit, range, default and consequence, and its check.

import { clusterError } from '../errors.ts'
import { type ClusterEvents, type EventName, eventNames } from '../events/events.ts'
import type { Host } from '../host/host.ts'
import type { Mesh } from '../mesh/mesh.ts'
import { type Logger, silentLogger } from '../observe/logger.ts'
import type { Meter } from '../observe/meter.ts'

export type ClusterOptions = {
  /** Path of the host's YAML file; created, with our section, when missing. Watched for edits while open. */
  configFile: string
  /** The database. */
  host: Host
  /** Of the cluster user, or a function that fetches it, at `open` and for `rotatePassword`. Needed when clustering is enabled; never written to a log. */
  password?: string | (() => Promise<string>) | undefined
  /** Another network than NATS; then no server is run and `password` and `natsServer` are not used. */
  mesh?: Mesh | undefined
  /** Path of the nats-server binary. Default: NATS_SERVER in the environment, then the PATH. */
  natsServer?: string | undefined
  /** Environment variables for both nats-server processes, such as GOMEMLIMIT and GOMAXPROCS. They get nothing else of this process's environment but PATH. */
  serverEnvironment?: Readonly<Record<string, string>> | undefined
  /** Pino-shaped. Default: silent. */
  logger?: Logger | undefined
  /** Listeners from before `open` resolves: `progress` is told to them while it is being opened, anything else right after it. */
  listeners?: { readonly [Name in EventName]?: (...args: ClusterEvents[Name]) => void }
  /** Of OpenTelemetry, or anything like it: told of the metrics whenever it collects. Default: none. */
  meter?: Meter | undefined
  /** ms that another node has to answer, 100 to 600,000, default 5,000. Operations that need it wait this long at most for each request. */
  requestTimeout?: number
  /** ms that `publish` waits for our leaf, 100 to 600,000, default 10,000; then it rejects publish_timeout, and the outbox still has the transaction. */
  publishTimeout?: number
  /** ms that another node's clock may be ahead of ours, 0 to 86,400,000, default 300,000. What is stamped later is not applied but reported. */
  maxClockDrift?: number
  /** Messages of one table on their way to our leaf, 1 to 65,536, default 1,024. More is faster up to a point, and costs memory. */
  publishWindow?: number
  /** Transactions read from the outbox and not yet acknowledged, 1 to 1,000,000, default 10,000; the rest waits in the outbox. */
  maxInFlight?: number
  /** The same in bytes, 1 to 2^31, default 64 MB. One transaction may exceed it alone. */
  maxInFlightBytes?: number
  /** Transactions applied in one transaction of the database, 1 to 10,000, default 500. Twice as many are held in memory for each table. */
  maxBatch?: number
  /** The same in bytes of messages, 1 to 2^31, default 8 MB. One transaction may exceed it alone. */
  maxBatchBytes?: number
  /** Messages in quarantine, of all sources together, 0 to 1,000,000, default 1,000. When it is full a subscription stalls at the next one. */
  maxQuarantined?: number
  /** The same in bytes of the files they lie in, 0 to 2^31, default 256 MB: a third more than the messages. */
  maxQuarantinedBytes?: number
}

const MEGABYTE_BYTES = 1024 * 1024
/** The README has this table, and a test compares. */
export const bounds = {
  requestTimeout: { min: 100, max: 600_000, default: 5_000, what: 'ms that another node has to answer a request' },
  publishTimeout: { min: 100, max: 600_000, default: 10_000, what: 'ms that `publish` waits for our leaf' },
  maxClockDrift: { min: 0, max: 86_400_000, default: 300_000, what: 'ms that another node’s clock may be ahead' },
  publishWindow: { min: 1, max: 65_536, default: 1_024, what: 'messages of one table on their way to our leaf' },
  maxInFlight: {
    min: 1,
    max: 1_000_000,
    default: 10_000,
    what: 'transactions read from the outbox and not yet acknowledged',
  },
  maxInFlightBytes: { min: 1, max: 2 ** 31, default: 64 * MEGABYTE_BYTES, what: 'the same in bytes' },
  maxBatch: { min: 1, max: 10_000, default: 500, what: 'transactions in one call of `apply`' },
  maxBatchBytes: { min: 1, max: 2 ** 31, default: 8 * MEGABYTE_BYTES, what: 'the same in bytes' },
  maxQuarantined: { min: 0, max: 1_000_000, default: 1_000, what: 'messages that are set aside' },
  maxQuarantinedBytes: { min: 0, max: 2 ** 31, default: 256 * MEGABYTE_BYTES, what: 'the same in bytes' },
} as const

type NumberName = keyof typeof bounds
export type CheckedOptions = Omit<ClusterOptions, NumberName | 'logger'> &
  Record<NumberName, number> & { logger: Logger }

const HOST_METHODS = [
  'info',
  'lastTimestamp',
  'describe',
  'createTable',
  'apply',
  'loadCheckpoint',
  'deleteCheckpoint',
] as const
const OPTION_NAMES = [
  'configFile',
  'host',
  'password',
  'mesh',
  'natsServer',
  'serverEnvironment',
  'logger',
  'listeners',
  'meter',
  ...Object.keys(bounds),
] as const
const METER_METHODS = [
  'createObservableCounter',
  'createObservableGauge',
  'addBatchObservableCallback',
  'removeBatchObservableCallback',
] as const
const OUTBOX_METHODS = ['readOutbox', 'confirmPublished', 'publishedPosition'] as const

/** Fills in the defaults. Throws invalid_option, naming the option and the value received. */
export function checkOptions(options: ClusterOptions = {} as ClusterOptions): CheckedOptions {
  const invalidOption = (name: string, expected: string, value: unknown) =>
    clusterError(
      'invalid_option',
      `option '${name}' must be ${expected}, received ${typeof value === 'string' ? `'${value}'` : String(value)}`,
    )
  for (const name of Object.keys(options))
    if (!(OPTION_NAMES as readonly string[]).includes(name))
      throw clusterError('invalid_option', `there is no option '${name}'`)
  const { configFile, host, password, logger } = options
  for (const name of ['debug', 'info', 'warn', 'error'] as const)
    if (logger && typeof logger[name] !== 'function') throw invalidOption(`logger.${name}`, 'a function', logger[name])
  if (typeof configFile !== 'string' || configFile === '') throw invalidOption('configFile', 'a path', configFile)
  if (typeof host !== 'object' || host === null) throw invalidOption('host', 'a Host', host)
  for (const name of HOST_METHODS)
    if (typeof host[name] !== 'function') throw invalidOption(`host.${name}`, 'a function', host[name])
  const outbox = OUTBOX_METHODS.filter((name) => host[name] !== undefined)
  if (outbox.length > 0 && outbox.length < OUTBOX_METHODS.length)
    throw invalidOption('host', `with all of ${OUTBOX_METHODS.join(', ')} or none`, `only ${outbox.join(', ')}`)
  if (password !== undefined && typeof password !== 'string' && typeof password !== 'function')
    throw invalidOption('password', 'a string or a function', typeof password)
  for (const [name, value] of Object.entries(options.serverEnvironment ?? {})) {
    if (!/^[A-Za-z_]\w*$/.test(name))
      throw invalidOption('serverEnvironment', 'an object of environment variables', name)
    if (typeof value !== 'string' || value.includes('\0'))
      throw invalidOption(`serverEnvironment.${name}`, 'a string without null characters', typeof value)
  }
  for (const [event, listener] of Object.entries(options.listeners ?? {})) {
    if (!(eventNames as readonly string[]).includes(event))
      throw invalidOption('listeners', `listeners by event`, event)
    if (typeof listener !== 'function') throw invalidOption(`listeners.${event}`, 'a function', listener)
  }
  for (const name of METER_METHODS)
    if (options.meter && typeof options.meter[name] !== 'function')
      throw invalidOption(`meter.${name}`, 'a function', options.meter[name])
  const checked = {} as Record<NumberName, number>
  for (const [name, { min, max, default: fallback }] of Object.entries(bounds) as [
    NumberName,
    (typeof bounds)[NumberName],
  ][]) {
    const value = options[name] ?? fallback
    if (!Number.isInteger(value) || value < min || value > max)
      throw invalidOption(name, `an integer from ${min} to ${max}`, value)
    checked[name] = value
  }
  return { ...options, ...checked, logger: options.logger ?? silentLogger }
}
