// Rules for names of hosts, nodes, databases and tables, shared by the configuration file and the operations. Pure.

import { isIPv4, isIPv6 } from 'node:net'

const label = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i

/** An IPv6 address without its brackets; any other host unchanged. */
export const bareHost = (host: string): string =>
  host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host

/** A host name or an IP address that is valid in a URL, IPv6 with or without brackets, at most 253 characters. */
export function isHost(host: string): boolean {
  if (host.length < 1 || host.length > 253) return false
  // A zone ('%eth0') is valid on one machine only, and not allowed in the host of a URL.
  if (host.includes(':')) return isIPv6(bareHost(host)) && !host.includes('%')
  if (isIPv4(host)) return true
  const labels = (host.endsWith('.') ? host.slice(0, -1) : host).split('.')
  // URLs parse a name that ends in a number as an IPv4 address, which this one is not.
  return labels.every((part) => label.test(part)) && !/^(\d+|0x[0-9a-f]*)$/i.test(labels.at(-1) ?? '')
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are rejected
const notInNodeNames = /[\s\u0000-\u001f\u007f-\u009f/.,*>\p{Surrogate}]/u
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are rejected
const notInTokens = /[\s\u0000-\u001f\u007f-\u009f.*>]/u
const loneSurrogate = /\p{Surrogate}/u

/** Why a node, database or table cannot have this name; undefined for a valid name. */
export type NameCheck = (name: string) => string | undefined

/** Three names of this length, in any script, fit into a line of the NATS protocol, which has at most 4096 bytes. */
const MAX_LENGTH = 255

/** The name of a node is part of subjects, server names and domains. */
export const isNodeName = (name: string): boolean =>
  name !== '' && name.length <= MAX_LENGTH && !notInNodeNames.test(name)

/** Why a database or table of that name cannot be part of a subject, and so cannot be replicated; undefined for a valid name. */
export function tokenFault(name: string): string | undefined {
  if (name === '' || notInTokens.test(name))
    return "a name must not contain blanks, control characters, '.', '*' or '>'"
  if (loneSurrogate.test(name)) return 'a name must be valid Unicode'
  return name.length > MAX_LENGTH ? `a name must have at most ${MAX_LENGTH} characters` : undefined
}

/** True when a database or table of that name can be replicated. */
export const isToken = (name: string): boolean => tokenFault(name) === undefined
