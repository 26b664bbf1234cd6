// What may name a host, a node, a database or a table. Pure rules, shared by the configuration file and the operations.

import { isIPv4, isIPv6 } from 'node:net'

const label = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i

/** An IPv6 address without its brackets; anything else as it is. */
export const bareHost = (host: string): string =>
  host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host

/** A host name or an IP address as it may stand in a URL, IPv6 with or without brackets, at most 253 characters. */
export function isHost(host: string): boolean {
  if (host.length < 1 || host.length > 253) return false
  // A zone ('%eth0') means something on one machine only and is no part of a URL's host.
  if (host.includes(':')) return isIPv6(bareHost(host)) && !host.includes('%')
  if (isIPv4(host)) return true
  const labels = (host.endsWith('.') ? host.slice(0, -1) : host).split('.')
  // A name that ends in a number is read as an IPv4 address by URLs, and this one is none.
  return labels.every((part) => label.test(part)) && !/^(\d+|0x[0-9a-f]*)$/i.test(labels.at(-1) ?? '')
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
const notInNodeNames = /[\s\u0000-\u001f\u007f-\u009f/.,*>\p{Surrogate}]/u
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
const notInTokens = /[\s\u0000-\u001f\u007f-\u009f.*>]/u
const loneSurrogate = /\p{Surrogate}/u

/** Why a node, database or table cannot have this name; undefined if it can. */
export type NameCheck = (name: string) => string | undefined

/** Three names of this length, in any script, fit into the 4096 bytes that a line of the NATS protocol may have. */
const MAX_LENGTH = 255

/** A node's name is part of subjects, server names and domains. */
export const isNodeName = (name: string): boolean =>
  name !== '' && name.length <= MAX_LENGTH && !notInNodeNames.test(name)

/** Why a database or table of that name cannot be part of a subject, and so not be replicated; undefined if it can. */
export function tokenFault(name: string): string | undefined {
  if (name === '' || notInTokens.test(name))
    return "a name must not contain blanks, control characters, '.', '*' or '>'"
  if (loneSurrogate.test(name)) return 'a name must be valid Unicode'
  return name.length > MAX_LENGTH ? `a name must have at most ${MAX_LENGTH} characters` : undefined
}

/** Can a database or table of that name be part of a subject, and so be replicated? */
export const isToken = (name: string): boolean => tokenFault(name) === undefined
