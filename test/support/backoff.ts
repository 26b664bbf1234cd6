// The number of attempts that a back-off allows.

/**
 * Maximum number of attempts within `ms` when the delays are 50 ms, 100 ms and so on up to `max`, each up to 20 % shorter (and 1 ms, by
 * which a timer may be early).
 */
export function attemptsWithin(ms: number, max = 1_000): number {
  let attempts = 1
  let elapsed = 0
  for (let wait = 50; ; wait = Math.min(2 * wait, max)) {
    elapsed += wait * 0.8 - 1
    if (elapsed > ms) return attempts
    attempts++
  }
}
