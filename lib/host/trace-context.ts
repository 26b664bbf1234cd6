// W3C trace context, carried along with a transaction: whoever applies it can continue the trace of whoever committed it.

/** As in the HTTP headers of the same names: https://www.w3.org/TR/trace-context/ */
export type TraceContext = { traceparent: string; tracestate?: string }

const PARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const STATE = /^[\x20-\x7e]{1,512}$/

/** What is valid of it: without a valid `traceparent` there is no context, and nobody's transaction fails for that. */
export function traceContext(
  given: { traceparent?: unknown; tracestate?: unknown } | undefined,
): TraceContext | undefined {
  const { traceparent, tracestate } = given ?? {}
  if (typeof traceparent !== 'string' || !PARENT.test(traceparent)) return undefined
  return typeof tracestate === 'string' && STATE.test(tracestate) ? { traceparent, tracestate } : { traceparent }
}
