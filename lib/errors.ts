// The one table of errors: every code this module can reject with, its HTTP status, its text, and what to do about it.

/** One fault of a request body: `path` as in `subscriptions[0].publish`, `message` a whole sentence part. */
export type Issue = { readonly path: string; readonly message: string }

type Entry<Args extends unknown[]> = {
  /** HTTP status a host answers with. */
  readonly statusCode: number
  readonly message: (...args: Args) => string
  /** May the same call succeed later, without anything being changed by the caller? */
  readonly retry: boolean
  /** What the reader can do about it. */
  readonly hint: string
}

const entry = <Args extends unknown[]>(
  statusCode: number,
  message: (...args: Args) => string,
  retry: boolean,
  hint: string,
): Entry<Args> => ({ statusCode, message, retry, hint })

export const errors = {
  forbidden: entry(
    403,
    () => 'This operation is not authorized due to role restrictions and/or invalid database items',
    false,
    'Clustering operations are for super users only.',
  ),
  operation_missing: entry(
    400,
    () => "Request body must include an 'operation' property.",
    false,
    'Name the operation in the body.',
  ),
  operation_unknown: entry(
    400,
    (operation: string) => `Operation '${operation}' not found`,
    false,
    'See the list of operations in the README.',
  ),
  clustering_disabled: entry(
    400,
    () => 'Clustering must be enabled to perform this operation.',
    false,
    'Set clustering.enabled to true in the configuration file.',
  ),
  invalid_request: entry(400, (text: string) => text, false, 'Each fault is listed in `issues`.'),
  node_exists: entry(
    400,
    (node: string) => `Node '${node}' has already been added, perform update_node to proceed.`,
    false,
    'Use update_node or set_node_replication.',
  ),
  node_not_found: entry(
    400,
    (node: string) => `Node '${node}' was not found.`,
    false,
    'cluster_status lists the nodes of the manifest.',
  ),
  table_not_found: entry(
    400,
    (table: string) => `Table '${table}' does not exist`,
    false,
    'Create the table, or mend its name.',
  ),
  database_not_found: entry(
    400,
    (database: string, table: string) => `Database '${database}' does not exist. Table '${table}' does not exist`,
    false,
    'Create the database, or mend its name.',
  ),
  subscription_not_found: entry(
    400,
    (node: string, table: string) => `There is no subscription to '${table}' of node '${node}'.`,
    false,
    'cluster.subscriptions() lists them.',
  ),
  node_not_listening: entry(
    500,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is not listening.`,
    true,
    'Is the node running, and is there a route to it? cluster_network shows who is reachable.',
  ),
  node_timeout: entry(
    504,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is listening but did not respond.`,
    true,
    'The node is reachable but slow: try again, or raise `requestTimeout`.',
  ),
  remote_refused: entry(
    500,
    (node: string, reason: string) => `Error returned from remote node ${node}: ${reason}`,
    false,
    'The reason is the other node’s own; mend it there.',
  ),
  config_rejected: entry(
    409,
    (file: string, problems: string) => `Configuration file ${file} is not valid: ${problems}`,
    false,
    'Mend the file; it is never overwritten while it is bad.',
  ),
  config_locked: entry(
    409,
    (file: string) => `Configuration file ${file} is in use by another cluster manager`,
    true,
    'One process at a time owns a node. Close the other one; a killed one leaves no lock behind.',
  ),
  config_unwritable: entry(
    500,
    (file: string, reason: string) => `Configuration file ${file} could not be written: ${reason}`,
    true,
    'Nothing was changed. Check the permissions of the file’s directory and the free space on its disk.',
  ),
  backlog_full: entry(
    503,
    (reason: string) => `The transaction was not acknowledged in time: ${reason}`,
    true,
    'The outbox still has it and it is sent as soon as the leaf server is back; without an outbox, publish it again.',
  ),
  transaction_too_large: entry(
    413,
    (size: string, limit: number) =>
      `The transaction takes ${size} for one table, more than the ${limit} a message may have`,
    false,
    'Split the transaction into smaller ones.',
  ),
  name_not_replicable: entry(
    400,
    (name: string, reason: string) => `'${name}' cannot be replicated: ${reason}`,
    false,
    'Rename the database or table.',
  ),
  aborted: entry(
    499,
    (operation: string) => `Unable to ${operation}, it was aborted.`,
    true,
    'The caller’s AbortSignal ended it.',
  ),
  mesh_unavailable: entry(
    503,
    (reason: string) => `The servers of this node do not answer: ${reason}`,
    true,
    'They are started again by themselves; try again in a moment. The log says why they ended.',
  ),
  internal: entry(
    500,
    (reason: string) => `The operation failed: ${reason}`,
    true,
    'Most likely the host’s own error: a method of Host rejected. The log and `cause` have it.',
  ),
  closed: entry(503, () => 'The cluster manager is closed', false, 'Open another ClusterManager.'),
  invalid_option: entry(500, (text: string) => text, false, 'The message names the option and the value received.'),
  node_name_missing: entry(
    500,
    (file: string) => `clustering.nodeName is missing in ${file}: a node needs a name to take part in a cluster`,
    false,
    'Set clustering.nodeName, or clustering.enabled to false.',
  ),
  nats_server_missing: entry(
    500,
    (reason: string) => `No usable nats-server: ${reason}`,
    false,
    'Install nats-server, best 2.14.3 or later, at least 2.9 (macOS: brew install nats-server; Debian, Docker: README, "Which nats-server"), or name the binary in the option `natsServer` or in NATS_SERVER.',
  ),
  port_taken: entry(
    500,
    (key: string, port: number) => `Port ${port} (${key}) is in use by another process`,
    true,
    'Free the port, or set another one in the configuration file.',
  ),
  tls_invalid: entry(
    500,
    (key: string, file: string, reason: string) => `${key}, ${file}, cannot be used: ${reason}`,
    false,
    'A PEM file that this process may read; the key must be that of the certificate.',
  ),
  folder_unusable: entry(
    500,
    (folder: string, reason: string) => `The folder ${folder} cannot be used: ${reason}`,
    false,
    'Name a folder of the user that the database runs as, which no other user may write. One below it that is missing is made.',
  ),
  server_failed: entry(
    500,
    (server: string, reason: string) => `The ${server} server did not start: ${reason}`,
    true,
    'Its log has the details; the module keeps trying while it is open.',
  ),
} as const

export type ErrorCode = keyof typeof errors

type Arguments<Code extends ErrorCode> = Parameters<(typeof errors)[Code]['message']>

/** The only kind of error that operations, `open` and `publish` reject with. `message` is what a host shows its caller. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError'
  /** A key of the table of errors; stable, meant for programs. */
  readonly code: ErrorCode
  /** HTTP status. */
  readonly statusCode: number
  /** What the reader can do about it. */
  readonly hint: string
  /** May the same call succeed later? */
  readonly retry: boolean
  /** For `invalid_request`: one entry a fault. */
  readonly issues?: readonly Issue[]

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; issues?: readonly Issue[] } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    const { statusCode, hint, retry } = errors[code]
    this.code = code
    this.statusCode = statusCode
    this.hint = hint
    this.retry = retry
    if (options.issues) this.issues = options.issues
  }
}

/** The error of that code, its text made from `args`. */
export function clusterError<Code extends ErrorCode>(code: Code, ...args: Arguments<Code>): ClusterError {
  const message = errors[code].message as (...args: Arguments<Code>) => string
  return new ClusterError(code, message(...args))
}

/** As `clusterError`, with the error that led to it. */
export function clusterErrorFrom<Code extends ErrorCode>(
  cause: unknown,
  code: Code,
  ...args: Arguments<Code>
): ClusterError {
  const message = errors[code].message as (...args: Arguments<Code>) => string
  return new ClusterError(code, message(...args), { cause })
}

/** `invalid_request` with every fault found. */
export function invalidRequest(issues: readonly Issue[]): ClusterError {
  return new ClusterError('invalid_request', issues.map((issue) => issue.message).join('. '), { issues })
}

/** What a caught value says, whatever was thrown. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
