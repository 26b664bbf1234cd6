// Reads a tree of unknown values by path, and collects all faults instead of stopping at the first one.

import { type Static, type TSchema, Type } from 'typebox'
import { Compile } from 'typebox/schema'
import { isHost, isNodeName, isToken } from './names.ts'

/** Keys and indexes from the root of the tree. */
export type Path = readonly (string | number)[]
/** `received`: the value in the file, which is not shown if it comes from outside of the section. */
export type Fault = { readonly path: Path; readonly message: string; readonly received?: string }

/** `clustering.nodes[0].name` */
export const pathText = (path: Path): string =>
  path.map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? part : `.${part}`)).join('')

const MAX_SHOWN_LENGTH = 100

const describeValue = (value: unknown): string => {
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'a list' : 'a map'
  const text = JSON.stringify(value) ?? String(value)
  return text.length > MAX_SHOWN_LENGTH ? `a text of ${text.length} characters` : text
}

/** A type of value; `expected` completes the sentence "must be ...". */
export type Kind<T> = {
  readonly expected: string
  readonly check: (value: unknown) => boolean
  readonly coerce: (value: unknown) => unknown
  /** Never set; carries the type. */
  readonly of?: T
}

const identity = (value: unknown) => value
const kind = <Schema extends TSchema>(schema: Schema, expected: string, coerce = identity): Kind<Static<Schema>> => {
  const validator = Compile(schema)
  return { expected, check: (value) => validator.Check(value), coerce }
}

// HarperDB stores numbers and booleans as they were sent, also as strings.
const toNumber = (value: unknown) => (typeof value === 'string' && /^\s*\d+\s*$/.test(value) ? Number(value) : value)
const toBoolean = (value: unknown) => (value === 'true' ? true : value === 'false' ? false : value)

const nameKind = (expected: string, test: (name: string) => boolean) =>
  kind(
    Type.Refine(Type.String(), test, () => expected),
    expected,
  )

export const kinds = {
  text: kind(Type.String({ minLength: 1 }), 'a non-empty string'),
  flag: kind(Type.Boolean(), 'true or false', toBoolean),
  port: kind(Type.Integer({ minimum: 1, maximum: 65535 }), 'a port, an integer from 1 to 65535', toNumber),
  count: kind(
    Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
    'an integer, 1 or more, or null',
    toNumber,
  ),
  /** Seconds. */
  age: kind(Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }), 'an integer, 0 or more, or null', toNumber),
  compatibility: kind(Type.Enum(['harperdb4'] as const), "'harperdb4' or null"),
  trim: kind(Type.Enum(['applied'] as const), "'applied' or null"),
  /** The syntax of nats-server. */
  syncInterval: nameKind(
    "'always' or a duration such as '10s', '500ms' or '1m30s'",
    (value) => value === 'always' || /^(?=.*[1-9])(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/.test(value),
  ),
  routeCompression: kind(
    Type.Enum(['off', 'accept', 's2_auto', 's2_fast', 's2_better', 's2_best']),
    'one of off, accept, s2_auto, s2_fast, s2_better, s2_best',
  ),
  logLevel: kind(Type.Enum(['error', 'warn', 'info', 'debug', 'trace']), 'one of error, warn, info, debug, trace'),
  host: nameKind('a host name or an IP address', isHost),
  nodeName: nameKind("a node name, without blanks, '/', ',', '.', '*' or '>'", isNodeName),
  token: nameKind(
    "a name that can be replicated: not empty, without blanks, control characters, '.', '*' or '>', at most 255 characters",
    isToken,
  ),
} as const

/** A value of the tree and its path. Readers return undefined for an unset (missing or null) or invalid value. */
export class ConfigNode {
  readonly value: unknown
  readonly path: Path
  readonly faults: Fault[]
  /** A parent is not a map, which is reported there; missing keys are not reported again. */
  readonly #parentIsInvalid: boolean

  constructor(value: unknown, path: Path = [], faults: Fault[] = [], parentIsInvalid = false) {
    this.value = value
    this.path = path
    this.faults = faults
    this.#parentIsInvalid = parentIsInvalid
  }

  get unset(): boolean {
    return this.value === undefined || this.value === null
  }

  addFault(message: string, received?: string): void {
    // An invalid map is found again for every key below it, and reported once.
    const path = pathText(this.path)
    if (!this.faults.some((other) => other.message === message && pathText(other.path) === path))
      this.faults.push({ path: this.path, message, ...(received !== undefined && { received }) })
  }

  /** The descendant at `path`, such as `hubServer.network.port`. */
  at(path: string): ConfigNode {
    return path.split('.').reduce<ConfigNode>((node, key) => node.#child(key), this)
  }

  #child(key: string): ConfigNode {
    const { value } = this
    const isMap = typeof value === 'object' && value !== null && !Array.isArray(value)
    if (!isMap && !this.unset) this.addFault('must be a map', describeValue(value))
    const child = isMap && Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined
    return new ConfigNode(child, [...this.path, key], this.faults, this.#parentIsInvalid || !(isMap || this.unset))
  }

  /** The value if it is of that kind; adds a fault otherwise. */
  read<T>(kind: Kind<T>): T | undefined {
    if (this.unset) return undefined
    const value = kind.coerce(this.value)
    if (kind.check(value)) return value as T
    this.addFault(`must be ${kind.expected}`, describeValue(this.value))
    return undefined
  }

  /** As `read`; an unset value is a fault as well. */
  require<T>(kind: Kind<T>): T | undefined {
    if (this.unset && !this.#parentIsInvalid) this.addFault(`is missing, it must be ${kind.expected}`)
    return this.read(kind)
  }

  /** The items of a list; empty when unset. */
  items(): ConfigNode[] {
    if (this.unset) return []
    if (Array.isArray(this.value))
      return this.value.map((item: unknown, index) => new ConfigNode(item, [...this.path, index], this.faults))
    this.addFault('must be a list', describeValue(this.value))
    return []
  }
}
