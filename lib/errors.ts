// The table of errors: every code that this module rejects with, its HTTP status, message, hint, and whether a retry can succeed.
// Messages marked "HarperDB" are those of its operations API, word for word.

/** One fault of a request body. `path`: for example `subscriptions[0].publish`; `message`: a sentence without a full stop. */
export type Issue = { readonly path: string; readonly message: string }

type ErrorDefinition<Args extends unknown[]> = {
  /** HTTP status for the answer of the host. */
  readonly statusCode: number
  readonly message: (...args: Args) => string
  /** The same call may succeed later, without a change by the caller. */
  readonly retryable: boolean
  /** What to do. */
  readonly hint: string
}

const defineError = <Args extends unknown[]>(
  statusCode: number,
  message: (...args: Args) => string,
  retryable: boolean,
  hint: string,
): ErrorDefinition<Args> => ({ statusCode, message, retryable, hint })

export const errors = {
  /** HarperDB */
  forbidden: defineError(
    403,
    () => 'This operation is not authorized due to role restrictions and/or invalid database items',
    false,
    'Only super users may run clustering operations.',
  ),
  /** HarperDB */
  operation_missing: defineError(
    400,
    () => "Request body must include an 'operation' property.",
    false,
    'Add `operation` to the body.',
  ),
  /** HarperDB */
  operation_unknown: defineError(
    400,
    (operation: string) => `Operation '${operation}' not found`,
    false,
    'lib/operations/README.md lists the operations.',
  ),
  /** HarperDB */
  clustering_disabled: defineError(
    400,
    () => 'Clustering must be enabled to perform this operation.',
    false,
    'Set clustering.enabled to true in the configuration file.',
  ),
  invalid_request: defineError(400, (text: string) => text, false, '`issues` lists every fault with its path.'),
  /** HarperDB */
  node_exists: defineError(
    400,
    (node: string) => `Node '${node}' has already been added, perform update_node to proceed.`,
    false,
    'Use update_node or set_node_replication.',
  ),
  /** HarperDB */
  node_not_found: defineError(
    400,
    (node: string) => `Node '${node}' was not found.`,
    false,
    'cluster_status lists the nodes of the manifest.',
  ),
  /** HarperDB */
  table_not_found: defineError(
    400,
    (table: string) => `Table '${table}' does not exist`,
    false,
    'Create the table, or correct its name.',
  ),
  /** HarperDB */
  database_not_found: defineError(
    400,
    (database: string, table: string) => `Database '${database}' does not exist. Table '${table}' does not exist`,
    false,
    'Create the database, or correct its name.',
  ),
  subscription_not_found: defineError(
    400,
    (node: string, table: string) => `No subscription to table '${table}' of node '${node}'.`,
    false,
    'cluster.subscriptions() lists the subscriptions.',
  ),
  rows_not_served: defineError(
    501,
    (node: string) => `Node '${node}' serves no rows: its database cannot read them for other nodes`,
    false,
    'Implement Host.readRows on that node, or update its version of enmesh.',
  ),
  replace_unsupported: defineError(
    501,
    () => 'The database cannot empty a table for a copy: Host.emptyTable is missing',
    false,
    'Drop and create the table instead: it is then copied from the nodes that it is subscribed from.',
  ),
  subscription_not_stalled: defineError(
    409,
    (node: string, table: string) => `The database refuses no transaction of table '${table}' of node '${node}' now.`,
    false,
    'cluster.subscriptions() shows in `refused` which transaction the database refuses.',
  ),
  quarantine_full: defineError(
    507,
    (messages: number, bytes: number, reason: string) =>
      `the quarantine is full (${messages} messages, ${bytes} bytes): ${reason}`,
    true,
    'Replay or discard quarantined messages, or raise `maxQuarantined` and `maxQuarantinedBytes`.',
  ),
  /** HarperDB */
  node_not_listening: defineError(
    500,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is not listening.`,
    true,
    'Check that the node is running and that a route leads to it. cluster_network lists the reachable nodes.',
  ),
  /** HarperDB */
  node_timeout: defineError(
    504,
    (operation: string, node: string) => `Unable to ${operation}, node '${node}' is listening but did not respond.`,
    true,
    'The node is reachable but slow: retry, or raise `requestTimeout`.',
  ),
  /** HarperDB */
  peer_rejected: defineError(
    500,
    (node: string, reason: string) => `Error returned from remote node ${node}: ${reason}`,
    false,
    'The remote node rejected the request: fix the cause there.',
  ),
  version_unsupported: defineError(
    500,
    (what: string, version: number, readable: string) =>
      `${what} has version ${version}, this version of enmesh reads version ${readable}`,
    false,
    'A later version of enmesh wrote it: run that version or a later one.',
  ),
  config_rejected: defineError(
    409,
    (file: string, problems: string) => `Configuration file ${file} is not valid: ${problems}`,
    false,
    'Fix the file. An invalid file is never overwritten.',
  ),
  config_locked: defineError(
    409,
    (file: string) => `Configuration file ${file} is in use by another cluster manager`,
    true,
    'Close the other cluster manager: one process at a time may run a node. A killed process leaves no lock.',
  ),
  config_unwritable: defineError(
    500,
    (file: string, reason: string) => `Configuration file ${file} could not be written: ${reason}`,
    true,
    'Nothing was changed. Check the permissions of the directory and the free space on the disk.',
  ),
  state_unwritable: defineError(
    500,
    (file: string, reason: string) => `File ${file} of the node's state could not be written: ${reason}`,
    true,
    'Nothing was changed. Check the permissions of the directory and the free space on the disk.',
  ),
  host_timeout: defineError(
    503,
    (call: string, ms: number) => `The database has not answered ${call} for ${Math.round(ms / 1_000)} s`,
    true,
    'The call may still take effect. See the log of the database, or raise `hostTimeout`. Calls that must not overlap it are rejected until it ends.',
  ),
  publish_timeout: defineError(
    503,
    (reason: string) => `The transaction was not acknowledged in time: ${reason}`,
    true,
    'If `mayStillBeSent`, the transaction is sent when the leaf server is back; `publish` of the same id waits for that and sends nothing twice. Otherwise it was not accepted: publish it again.',
  ),
  not_in_outbox: defineError(
    500,
    (id: string) => `The outbox does not contain transaction '${id}', and it was not among the last ones confirmed`,
    false,
    'Commit the transaction to the outbox together with its rows, then call `publish`. Only a transaction that was confirmed long before this call, or before the last start, was published all the same.',
  ),
  transaction_too_large: defineError(
    413,
    (size: string, limit: number) => `The transaction has ${size} for one table, more than the limit of ${limit}`,
    false,
    'Split the transaction.',
  ),
  too_few_replicas: defineError(
    409,
    (reason: string) => `The transaction cannot be replicated as asked: ${reason}`,
    false,
    'Ask for fewer nodes, or subscribe more nodes to the tables. cluster.replicas() lists them.',
  ),
  not_applied: defineError(
    409,
    (node: string, table: string) =>
      `Node '${node}' has passed the transaction of table '${table}' without applying it`,
    true,
    'It is in quarantine there, or was lost in a gap or discarded. A copy of the rows brings what was lost: cluster.subscriptions() of that node has the reason.',
  ),
  replication_timeout: defineError(
    504,
    (reason: string) => `The transaction was not replicated in time: ${reason}`,
    true,
    'It is replicated as soon as the nodes can be reached: wait again, or raise `timeout`.',
  ),
  token_invalid: defineError(
    400,
    (reason: string) => `The token is invalid: ${reason}`,
    false,
    'Pass the string that cluster.token() resolved with, unchanged.',
  ),
  token_expired: defineError(
    409,
    (node: string, table: string) => `The token names a stream of table '${table}' that node '${node}' no longer has`,
    false,
    'The stream was replaced, because the store or the database of that node was restored. Take a new token.',
  ),
  token_too_large: defineError(
    413,
    (length: number, limit: number) =>
      `The token of the transaction has ${length} characters, more than the limit of ${limit}`,
    false,
    'Split the transaction: a token names each of its tables.',
  ),
  name_not_replicable: defineError(
    400,
    (name: string, reason: string) => `'${name}' cannot be replicated: ${reason}`,
    false,
    'Rename the database or table.',
  ),
  aborted: defineError(
    499,
    (operation: string) => `Unable to ${operation}, the caller aborted it.`,
    true,
    'The AbortSignal of the caller aborted the operation.',
  ),
  mesh_unavailable: defineError(
    503,
    (reason: string) => `The servers of the local node do not answer: ${reason}`,
    true,
    'The servers restart automatically: retry in a moment. The log has the reason.',
  ),
  node_superseded: defineError(
    503,
    (node: string) =>
      `Another process uses the name '${node}': this one takes no part in the cluster until that one is gone`,
    true,
    'Close the other process, or rename one of the two nodes: lib/mesh/README.md.',
  ),
  restamping: defineError(
    503,
    () => 'Timestamps are being rewritten after a wrong clock',
    true,
    'Commit again when cluster.restamp() has resolved.',
  ),
  restamp_unsupported: defineError(
    501,
    () => 'The database cannot rewrite timestamps: Host.restamp is missing',
    false,
    'Wait until the clock passes the highest timestamp: the peers then apply what they quarantined.',
  ),
  clock_ahead: defineError(
    503,
    (node: string, aheadMs: number, reason: string) =>
      `The clock of node '${node}' is ${Math.round(aheadMs / 1_000)} s ahead: ${reason}`,
    true,
    'Correct the clock, then call cluster.restamp(). lib/replication/README.md has the steps.',
  ),
  internal: defineError(
    500,
    (reason: string) => `The operation failed: ${reason}`,
    true,
    'Usually a method of Host rejected. See the log and `cause`.',
  ),
  closed: defineError(503, () => 'The cluster manager is closed', false, 'Open a new ClusterManager.'),
  invalid_option: defineError(500, (text: string) => text, false, 'Correct the option that the message names.'),
  node_name_missing: defineError(
    500,
    (file: string) => `clustering.nodeName is missing in ${file}, it is required while clustering is enabled`,
    false,
    'Set clustering.nodeName, or set clustering.enabled to false.',
  ),
  nats_server_missing: defineError(
    500,
    (reason: string) => `No usable nats-server: ${reason}`,
    false,
    'Install nats-server 2.9 or later, 2.14.3 or later recommended (macOS: brew install nats-server; Debian, Docker: lib/mesh/README.md), or set the option `natsServer` or NATS_SERVER to the path of the binary.',
  ),
  port_taken: defineError(
    500,
    (key: string, port: number) => `Port ${port} (${key}) is in use by another process`,
    true,
    'Free the port, or set another one in the configuration file.',
  ),
  tls_invalid: defineError(
    500,
    (key: string, file: string, reason: string) => `${key}: file ${file} is not usable: ${reason}`,
    false,
    'Use PEM files that this process can read, and the private key of the certificate.',
  ),
  directory_unusable: defineError(
    500,
    (directory: string, reason: string) => `Directory ${directory} is not usable: ${reason}`,
    false,
    'Use a directory that the user of this process owns and that no other user can write. A missing directory is created.',
  ),
  directory_in_use: defineError(
    409,
    (directory: string, holder: string) => `Directory ${directory} is in use by another cluster manager: ${holder}`,
    true,
    'Close the other cluster manager, or give each node a directory: set `rootPath`, and `clustering.leafServer.streams.path` if it is set. A killed process leaves no lock.',
  ),
  server_failed: defineError(
    500,
    (server: string, reason: string) => `The ${server} server did not start: ${reason}`,
    true,
    'See the log of the server.',
  ),
  harperdb_unreachable: defineError(
    503,
    (url: string, reason: string) => `HarperDB does not answer at ${url}: ${reason}`,
    true,
    'Start HarperDB, or correct the URL of its operations API, and repeat the migration: it continues where it stopped.',
  ),
  harperdb_rejected: defineError(
    502,
    (operation: string, url: string, reason: string) => `HarperDB at ${url} rejected ${operation}: ${reason}`,
    false,
    'Log in as a super user of HarperDB. See its log for other reasons.',
  ),
  migration_blocked: defineError(
    409,
    (reason: string) => `The migration cannot go on: ${reason}`,
    false,
    'Fix what the message names, and repeat the migration. lib/migrate/README.md has the steps.',
  ),
} as const

export type ErrorCode = keyof typeof errors

type ErrorOptions = { cause?: unknown; issues?: readonly Issue[]; mayStillBeSent?: boolean }
type Arguments<Code extends ErrorCode> = Parameters<(typeof errors)[Code]['message']>

/** Operations, `open` and `publish` reject with this error only. `message` is meant for the caller of the host's API. */
export class ClusterError extends Error {
  override readonly name = 'ClusterError'
  /** A key of `errors`; stable. */
  readonly code: ErrorCode
  /** HTTP status for the answer of the host. */
  readonly statusCode: number
  /** What to do. */
  readonly hint: string
  /** The same call may succeed later, without a change by the caller. */
  readonly retryable: boolean
  /** One entry per fault, for `invalid_request`. */
  readonly issues?: readonly Issue[]
  /** For `publish_timeout`: true when the transaction may be stored already or is still to be sent; false when it was not accepted. */
  readonly mayStillBeSent?: boolean

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    const { statusCode, hint, retryable } = errors[code]
    this.code = code
    this.statusCode = statusCode
    this.hint = hint
    this.retryable = retryable
    if (options.issues) this.issues = options.issues
    if (options.mayStillBeSent !== undefined) this.mayStillBeSent = options.mayStillBeSent
  }
}

/** An error with that code; `args` are the values in its message. */
export function clusterError<Code extends ErrorCode>(code: Code, ...args: Arguments<Code>): ClusterError {
  const message = errors[code].message as (...args: Arguments<Code>) => string
  return new ClusterError(code, message(...args))
}

/** As `clusterError`, with a `cause`. */
export function clusterErrorFrom<Code extends ErrorCode>(
  cause: unknown,
  code: Code,
  ...args: Arguments<Code>
): ClusterError {
  const message = errors[code].message as (...args: Arguments<Code>) => string
  return new ClusterError(code, message(...args), { cause })
}

/** `invalid_request` with all faults. */
export function invalidRequest(issues: readonly Issue[]): ClusterError {
  return new ClusterError('invalid_request', issues.map((issue) => issue.message).join('. '), { issues })
}

/** `publish_timeout`, with `ClusterError.mayStillBeSent`. */
export const publishTimeout = (reason: string, mayStillBeSent: boolean): ClusterError =>
  new ClusterError('publish_timeout', errors.publish_timeout.message(reason), { mayStillBeSent })

/** The message of a caught value, which need not be an Error. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
