// How often somebody may try who is to have less and less haste.

/** Most attempts within `ms` of who waits 50 ms behind the first, twice as long behind the second, and so on; and one more, that nobody measures too closely. */
export const attemptsWithin = (ms: number): number => 2 + Math.floor(Math.log2(1 + ms / 50))
