// Waiting for other nodes over HTTP: a write says with `x-replicate-wait` how many nodes must have it before the answer, and gets a
// token in `x-write-token`; a read with that token in `x-read-after`, on any node, sees the write.

import { once } from 'node:events'
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { ClusterManager, Transaction } from '../../lib/index.ts'
import { badRequest } from './errors.ts'

export type WaitingCluster = Pick<ClusterManager, 'replicated' | 'token' | 'caughtUp'>

/** What the caller asked for. Throws HostError 400. */
export function readWaitingHeaders(headers: IncomingHttpHeaders) {
  const { 'x-replicate-wait': wait, 'x-read-after': after } = headers
  return { nodes: wait === undefined ? undefined : readNodes(String(wait)), token: after && String(after) }
}

/** A number of nodes, or their names, separated by commas. 0 waits for the local leaf alone, and answers with the token. */
function readNodes(text: string): number | string[] {
  if (/^\d{1,6}$/.test(text.trim())) return Number(text)
  const names = text.split(',').map((name) => name.trim())
  if (names.every((name) => name !== '' && !/^[-+.\d]+$/.test(name))) return names
  throw badRequest('x-replicate-wait must be a number of nodes, or names of nodes separated by commas')
}

/**
 * Resolves when these nodes have applied the transaction, or why they have not, with its token. Never rejects: the transaction stays
 * committed in any case, and is replicated later.
 */
export async function waitForNodes(
  cluster: WaitingCluster,
  transaction: Transaction,
  { nodes, signal }: { nodes: number | string[]; signal: AbortSignal },
): Promise<{ token?: string; error?: unknown }> {
  // Both wait for the acknowledgement of the local leaf.
  const [token, replicated] = await Promise.allSettled([
    cluster.token(transaction),
    nodes === 0 ? undefined : cluster.replicated(transaction, { nodes, signal }),
  ])
  const failed = [token, replicated].find((each) => each.status === 'rejected')
  return { ...(token.status === 'fulfilled' && { token: token.value }), ...(failed && { error: failed.reason }) }
}

/** Aborts when the client has closed its connection before the answer. */
export function abortedWith(response: ServerResponse): AbortSignal {
  const controller = new AbortController()
  void once(response, 'close').then(
    () => controller.abort(),
    () => {},
  )
  return controller.signal
}
