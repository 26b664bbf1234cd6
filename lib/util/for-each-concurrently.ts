// Asynchronous work on many items, a bounded number at a time.

/**
 * Runs `work` on batches of `limit` items, and `report` after each batch. When one fails, the rest of its batch still finishes; then
 * this rejects as the first that failed.
 */
export async function forEachConcurrently<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<unknown>,
  report?: (done: number, total: number) => void,
): Promise<void> {
  for (let from = 0; from < items.length; from += limit) {
    const results = await Promise.allSettled(items.slice(from, from + limit).map(work))
    for (const result of results) if (result.status === 'rejected') throw result.reason
    report?.(Math.min(from + limit, items.length), items.length)
  }
}
