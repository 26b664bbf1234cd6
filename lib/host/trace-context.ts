// W3C trace context that travels with a transaction: the node that applies it can continue the trace of the node that committed it.

/** The values of the HTTP headers with these names: https://www.w3.org/TR/trace-context/ */
export type TraceContext = { traceparent: string; tracestate?: string }

const PARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const STATE = /^[\x20-\x7e]{1,512}$/

/** The valid part; undefined without a valid `traceparent`. An invalid context never makes a transaction fail. */
export function traceContext(
  given: { traceparent?: unknown; tracestate?: unknown } | undefined,
): TraceContext | undefined {
  if (!given) return undefined
  const { traceparent, tracestate } = given
  if (typeof traceparent !== 'string' || !PARENT.test(traceparent)) return undefined
  return typeof tracestate === 'string' && STATE.test(tracestate) ? { traceparent, tracestate } : { traceparent }
}
