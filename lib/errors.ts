// The one table of errors: every code this module can reject with, its HTTP status, its text, and what to do about it.

/** One fault of a request body: `path` as in `subscriptions[0].publish`, `message` a whole sentence part. */
export type Issue = { readonly path: string; readonly message: string }

type ErrorDefinition<Args extends unknown[]> = {
  /** HTTP status a host answers with. */
  readonly statusCode: number
  readonly message: (...args: Args) => string
  /** May the same call succeed later, without anything being changed by the caller? */
  readonly retryable: boolean
  /** What the reader can do about it. */
  readonly hint: string
}

const defineError = <Args extends unknown[]>(
  statusCode: number,
  message: (...args: Args) => string,
  retryable: boolean,
  hint: string,
): ErrorDefinition<Args> => ({ statusCode, message, retryable, hint })

export const errors = {
  forbidden: defineError(
    403,
    () => 'This operation is not authorized due to role restrictions and/or invalid database items',
    false,
    'Clustering operations are for super users only.',
  ),
  operation_missing: defineError(
    400,
    () => "Request body must include an 'operation' property.",
    false,
    'Name the operation in the body.',
  ),
  operation_unknown: defineError(
    400,
    (operation: string) => `Operation '${operation}' not found`,
    false,
    'See the list of operations in the README.',
  ),
  clustering_disabled: defineError(
    400,
    () => 'Clustering must be enabled to perform this operation.',
    false,
    'Set clustering.enabled to true in the configuration file.',
  ),
  invalid_request: defineError(400, (text: string) => text, false, 'Each fault is listed in `issues`.'),
  node_exists: defineError(
    400,
    (node: string) => `Node '${node}' has already been added, perform update_node to proceed.`,
    false,
    'Use update_node or set_node_replication.',
  ),
  node_not_found: defineError(
    400,
    (node: string) => `Node '${node}' was not found.`,
    false,
    'cluster_status lists the nodes of the manifest.',
  ),
  table_not_found: defineError(
    400,
    (table: string) => `Table '${table}' does not exist`,
    false,
    'Create the table, or mend its name.',
  ),
  database_not_found: defineError(
    400,
    (database: string, table: string) => `Database '${database}' does not exist. Table '${table}' does not exist`,
    false,
    'Create the database, or mend its name.',
  ),
  subscription_not_found: defineError(
    400,
    (node: string, table: string) => `There is no subscription to '${table}' of node '${node}'.`,
    false,
    'cluster.subscriptions() lists them.',
  ),
  node_not_listening: defineError(
    500,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is not listening.`,
    true,
    'Is the node running, and is there a route to it? cluster_network shows who is reachable.',
  ),
  node_timeout: defineError(
    504,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is listening but did not respond.`,
    true,
    'The node is reachable but slow: try again, or raise `requestTimeout`.',
  ),
  peer_rejected: defineError(
    500,
    (node: string, reason: string) => `Error returned from remote node ${node}: ${reason}`,
    false,
    'The reason is the other node’s own; mend it there.',
  ),
  config_rejected: defineError(
    409,
    (file: string, problems: string) => `Configuration file ${file} is not valid: ${problems}`,
    false,
    'Mend the file; it is never overwritten while it is bad.',
  ),
  config_locked: defineError(
    409,
    (file: string) => `Configuration file ${file} is in use by another cluster manager`,
    true,
    'One process at a time owns a node. Close the other one; a killed one leaves no lock behind.',
  ),
  config_unwritable: defineError(
    500,
    (file: string, reason: string) => `Configuration file ${file} could not be written: ${reason}`,
    true,
    'Nothing was changed. Check the permissions of the file’s directory and the free space on its disk.',
  ),
  publish_timeout: defineError(
    503,
    (reason: string) => `The transaction was not acknowledged in time: ${reason}`,
    true,
    'The outbox still has it and it is sent as soon as the leaf server is back; without an outbox, publish it again.',
  ),
  transaction_too_large: defineError(
    413,
    (size: string, limit: number) =>
      `The transaction takes ${size} for one table, more than the ${limit} a message may have`,
    false,
    'Split the transaction into smaller ones.',
  ),
  name_not_replicable: defineError(
    400,
    (name: string, reason: string) => `'${name}' cannot be replicated: ${reason}`,
    false,
    'Rename the database or table.',
  ),
  aborted: defineError(
    499,
    (operation: string) => `Unable to ${operation}, it was aborted.`,
    true,
    'The caller’s AbortSignal ended it.',
  ),
  mesh_unavailable: defineError(
    503,
    (reason: string) => `The servers of this node do not answer: ${reason}`,
    true,
    'They are started again by themselves; try again in a moment. The log says why they ended.',
  ),
  internal: defineError(
    500,
    (reason: string) => `The operation failed: ${reason}`,
    true,
    'Most likely the host’s own error: a method of Host rejected. The log and `cause` have it.',
  ),
  closed: defineError(503, () => 'The cluster manager is closed', false, 'Open another ClusterManager.'),
  invalid_option: defineError(
    500,
    (text: string) => text,
    false,
    'The message names the option and the value received.',
  ),
  node_name_missing: defineError(
    500,
    (file: string) => `clustering.nodeName is missing in ${file}: a node needs a name to take part in a cluster`,
    false,
    'Set clustering.nodeName, or clustering.enabled to false.',
  ),
  nats_server_missing: defineError(
    500,
    (reason: string) => `No usable nats-server: ${reason}`,
    false,
    'Install nats-server, best 2.14.3 or later, at least 2.9 (macOS: brew install nats-server; Debian, Docker: README, "Which nats-server"), or name the binary in the option `natsServer` or in NATS_SERVER.',
  ),
  port_taken: defineError(
    500,
    (key: string, port: number) => `Port ${port} (${key}) is in use by another process`,
    true,
    'Free the port, or set another one in the configuration file.',
  ),
  tls_invalid: defineError(
    500,
    (key: string, file: string, reason: string) => `${key}, ${file}, cannot be used: ${reason}`,
    false,
    'A PEM file that this process may read; the key must be that of the certificate.',
  ),
  directory_unusable: defineError(
    500,
    (directory: string, reason: string) => `The folder ${directory} cannot be used: ${reason}`,
    false,
    'Name a folder of the user that the database runs as, which no other user may write. One below it that is missing is made.',
  ),
  server_failed: defineError(
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
  readonly retryable: boolean
  /** For `invalid_request`: one entry a fault. */
  readonly issues?: readonly Issue[]

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; issues?: readonly Issue[] } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    const { statusCode, hint, retryable } = errors[code]
    this.code = code
    this.statusCode = statusCode
    this.hint = hint
    this.retryable = retryable
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
