// What would take too long every time is left to a sample, unless the whole was asked for: `npm run test:long`.

export const isLong = process.env.LONG_TESTS === '1'

/** All of them in a long run; otherwise those that `isTypical` names. */
export const sampled = <T>(all: readonly T[], isTypical: (each: T) => boolean): T[] =>
  isLong ? [...all] : all.filter(isTypical)
