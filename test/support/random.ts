// Seeds of random tests. Tests print the seed, so that a failure can be repeated.

export { randomNumbers } from '../../lib/mesh/memory/random.ts'

/** `SEED` of the environment, or a random seed. */
export const seedOf = (): number => Number(process.env.SEED) || Math.trunc(Math.random() * 2 ** 31)
