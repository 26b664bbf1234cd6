// Samples of long tests. `npm run test:long` runs them whole.

export const isLong = process.env.LONG_TESTS === '1'

/** All items in a long run; otherwise those that `isTypical` selects. */
export const sampled = <T>(all: readonly T[], isTypical: (each: T) => boolean): T[] =>
  isLong ? [...all] : all.filter(isTypical)
