// The options of the calls that wait for positions: meaning, defaults, and their checks.

import { type Issue, invalidRequest } from '../errors.ts'

export type CaughtUpOptions = {
  /** ms, 1 to 600,000. Default: 10,000. Then it rejects replication_timeout. */
  timeout?: number | undefined
  /** Rejects aborted. */
  signal?: AbortSignal | undefined
}

export type ReplicatedOptions = CaughtUpOptions & {
  /** Number of nodes, at least 1, or the names of the nodes that must have applied it. Default: 1. */
  nodes?: number | readonly string[] | undefined
}

const DEFAULT_TIMEOUT_MS = 10_000
const MAX_TIMEOUT_MS = 600_000

/** Throws invalid_request. */
export function checkTimeout(timeout: unknown = DEFAULT_TIMEOUT_MS): number {
  const issue = timeoutIssue(timeout)
  if (issue) throw invalidRequest([issue])
  return timeout as number
}

/** Throws invalid_request. */
export function checkReplicatedOptions({ nodes = 1, timeout = DEFAULT_TIMEOUT_MS, signal }: ReplicatedOptions) {
  const issues = [timeoutIssue(timeout), nodesIssue(nodes)].filter((issue) => issue !== undefined)
  if (issues.length > 0) throw invalidRequest(issues)
  return { nodes: typeof nodes === 'number' ? nodes : [...new Set(nodes)], timeout, signal }
}

function timeoutIssue(timeout: unknown): Issue | undefined {
  if (Number.isInteger(timeout) && (timeout as number) >= 1 && (timeout as number) <= MAX_TIMEOUT_MS) return undefined
  return { path: 'timeout', message: `'timeout' must be an integer from 1 to ${MAX_TIMEOUT_MS}` }
}

function nodesIssue(nodes: unknown): Issue | undefined {
  const isNumber = Number.isInteger(nodes) && (nodes as number) >= 1
  const isList = Array.isArray(nodes) && nodes.length > 0 && nodes.every((node) => typeof node === 'string')
  if (isNumber || isList) return undefined
  return { path: 'nodes', message: "'nodes' must be a number of at least 1, or a non-empty array of node names" }
}
