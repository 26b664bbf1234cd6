// Waiting that an AbortSignal can end.

/** Settles as `work` does, or rejects with `reason`, by default that of the signal, as soon as it aborts. Leaves no listener behind. */
export function withAbort<T>(
  work: Promise<T>,
  signal: AbortSignal | undefined,
  reason: () => unknown = () => signal?.reason,
): Promise<T> {
  if (!signal) return work
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(reason())
    if (signal.aborted) return abort()
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/** Whether the error is what waiting with this signal rejects with when it aborts: its reason, or an AbortError of Node.js. */
export const isAbortReason = (error: unknown, signal: AbortSignal | undefined): boolean =>
  signal?.aborted === true && (error === signal.reason || (error instanceof Error && error.name === 'AbortError'))
