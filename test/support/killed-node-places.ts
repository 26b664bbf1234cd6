// What a test and the program `killed-node.ts` share.

/** `rows copied`: a step in the middle of the copy is committed, and its answer is lost with the process. */
export type Place = 'before the table is emptied' | 'table emptied' | 'rows copied'

/** The file that names the place. */
export const PLACE_FILE = 'kill-at'
/** Nothing is read from the outbox while this file exists. */
export const HOLD_FILE = 'hold-outbox'
/** One line for each time that the table was emptied. */
export const EMPTIED_FILE = 'emptied'
/** Rows of a copy after which the process is killed. */
export const KILLED_AFTER = 1_500
