// What a comparison of the rows of two databases finds.

/** What the comparison of a table with that of another node found. Rows are counted with their tombstones. */
export type VerifyResult = {
  /** Number of local rows. */
  rows: number
  /** Rows that only the other node has, and rows that only this node has. */
  missingHere: number
  missingThere: number
  /** Rows that both have, with different timestamps, or different values if those are compared. */
  different: number
  /** Rows that differed and may be on their way: they kept changing, or a subscription of the table is not live. */
  inFlight: number
  /** Number of the rows above that were copied and are equal now. */
  repaired: number
}
