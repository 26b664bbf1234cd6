// The number of attempts that a back-off allows.

/**
 * Maximum number of attempts within `ms` when the delays are 50 ms, 100 ms and so on, each up to 20 % shorter. One attempt is added as
 * tolerance.
 */
export const attemptsWithin = (ms: number): number => 2 + Math.floor(Math.log2(1 + ms / 50))
