// What reading and writing of single messages have in common. A single message is one transaction as HarperDB 4.3 and later packs it: a map or
// records of msgpackr, with HarperDB's headers. An enmesh node writes it with the headers of a frame, and with what HarperDB has no
// place for in `__enmesh`.

import type { Headers } from '../../mesh/mesh.ts'

/**
 * `nodes`: one header line for each node, the one that committed the transaction and then those that relayed it, joined with commas where
 * they are read. `nodeCount`: how many they were when an enmesh node stored the message.
 */
export const HEADER = { id: 'Nats-Msg-Id', nodes: 'transacted_nodes', nodeCount: 'transacted_count' } as const

/**
 * Parts of a millisecond that a time of HarperDB tells apart: those of a 64-bit floating-point number of ms until the year 2039. So the
 * counter of a timestamp holds them without loss.
 */
export const PARTS_OF_MS = 4_096

export const transactedNodes = (headers: Headers): string[] =>
  (headers[HEADER.nodes] ?? '').split(',').filter((name) => name !== '')

/**
 * A HarperDB node has stored the message in its own stream, and added its name to the nodes: the headers of a frame tell the place in the
 * stream where it comes from.
 */
export const isForwarded = (headers: Headers): boolean =>
  headers[HEADER.nodeCount] !== undefined && headers[HEADER.nodeCount] !== `${transactedNodes(headers).length}`
