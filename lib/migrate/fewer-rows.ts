// A row of HarperDB may be of any size, and an answer of so many bytes or values only that it fits into the memory. So rows are asked for in
// smaller numbers when an answer cannot be read, and only a single row that cannot be is an error.

import { ClusterError } from '../errors.ts'

/** The cause of `harperdb_rejected` when an answer is too large, or cannot be decoded. */
export class UnreadableAnswer extends Error {}

const isUnreadable = (error: unknown) => error instanceof ClusterError && error.cause instanceof UnreadableAnswer

/** Asks for this many rows, and for half as many while the answer cannot be read. `rows` of the result: as many as it asked for at last. */
export async function askForFewer<T>(
  rows: number,
  ask: (rows: number) => Promise<T>,
): Promise<{ answer: T; rows: number }> {
  for (let asked = rows; ; asked = Math.floor(asked / 2)) {
    try {
      return { answer: await ask(asked), rows: asked }
    } catch (error) {
      if (asked <= 1 || !isUnreadable(error)) throw error
    }
  }
}
