// Steps that the host rejected or did not answer: they may have been committed all the same. The stored checkpoint decides.

import { isDeepStrictEqual } from 'node:util'
import type { Batch, Checkpoint, RemoteTable, RemoteTransaction, Transaction } from '../../host/host.ts'

/**
 * `position`: moves the position of the subscription. `release`: changes only what is in quarantine. `copy`: changes only the position
 * of a copy, and whether its rows are announced.
 */
export type StepKind = 'position' | 'release' | 'copy'

export type Step = {
  source: RemoteTable
  kind: StepKind
  before: Checkpoint | undefined
  /** Stored with the transactions. */
  checkpoint: Checkpoint
  transactions: RemoteTransaction[]
  relayed: Transaction[]
  /** Number of transactions that are not applied because they were applied before. */
  duplicates: number
  /** Of a step of kind `copy`. */
  copy?: CopyOptions
}

/** `empties`: the table is emptied; such a step has no transactions. */
export type CopyOptions = Pick<Batch, 'acceptOld' | 'horizon'> & { empties?: true }

type StepOutcome = 'committed' | 'not committed' | 'other'

/** The part of a checkpoint that steps of this kind change. Another part may have changed meanwhile. */
function changedPart(kind: StepKind, checkpoint: Checkpoint | undefined): unknown {
  if (!checkpoint || kind === 'release') return checkpoint?.quarantined
  if (kind === 'copy') return [checkpoint.copy, checkpoint.unannounced]
  const { epoch, sequence, index, partial, lastId, unverified, startTime, replayUntil, gaps, request } = checkpoint
  return { epoch, sequence, index, partial, lastId, unverified, startTime, replayUntil, gaps, request }
}

const isSame = (kind: StepKind, one: Checkpoint | undefined, other: Checkpoint | undefined): boolean =>
  isDeepStrictEqual(changedPart(kind, one), changedPart(kind, other))

/** `other`: the stored checkpoint is neither the one before the step nor the one after it. */
function outcomeOf({ kind, before, checkpoint }: Step, stored: Checkpoint | undefined): StepOutcome {
  if (isSame(kind, stored, before)) return 'not committed'
  return stored && isSame(kind, stored, checkpoint) ? 'committed' : 'other'
}

const keyOf = ({ node }: RemoteTable, kind: StepKind) => JSON.stringify([node, kind])

/** The unsettled steps of one table. */
export class UnsettledSteps {
  /** The outcome is unknown; by node. */
  readonly #unknown = new Map<string, Step>()
  /** Committed, and their callers were answered that they failed; by node and kind. */
  readonly #uncollected = new Map<string, Step>()
  /** Sources whose stored position is another than their subscribers know. */
  readonly #moved = new Set<string>()

  /** Nothing is unsettled, and nothing of it is left to tell. */
  get isEmpty(): boolean {
    return this.#unknown.size === 0 && this.#uncollected.size === 0 && this.#moved.size === 0
  }

  /** The host rejected this step. */
  add(step: Step): void {
    this.#unknown.set(step.source.node, step)
  }

  /** Sources with a step of unknown outcome. */
  sources(): RemoteTable[] {
    return [...this.#unknown.values()].map(({ source }) => source)
  }

  /** `stored` is the checkpoint in the database. Returns the step of this source if it was committed. */
  settle({ node }: RemoteTable, stored: Checkpoint | undefined): Step | undefined {
    const step = this.#unknown.get(node)
    if (!step) return undefined
    this.#unknown.delete(node)
    const isCommitted = outcomeOf(step, stored) === 'committed'
    // A copy reads its position again after a rejection: it does not repeat the step.
    if (isCommitted && step.kind !== 'copy') this.#uncollected.set(keyOf(step.source, step.kind), step)
    if (!isSame('position', stored, isCommitted ? step.checkpoint : step.before)) this.#moved.add(node)
    return isCommitted ? step : undefined
  }

  /**
   * Removes and returns a committed step of this kind. When `isRepeated` returns false for it, its caller goes on with another step:
   * a subscriber whose position is older then has to read again.
   */
  collect(source: RemoteTable, kind: StepKind, isRepeated: (step: Step) => boolean) {
    const key = keyOf(source, kind)
    const step = this.#uncollected.get(key)
    if (!step) return undefined
    this.#uncollected.delete(key)
    const repeated = isRepeated(step)
    if (!repeated && kind === 'position') this.#moved.add(source.node)
    return { step, isRepeated: repeated }
  }

  hasMoved({ node }: RemoteTable): boolean {
    return this.#moved.has(node)
  }

  /** The subscriber reads the stored position now. Returns the committed steps that nothing has collected. */
  resume(source: RemoteTable): Step[] {
    this.#moved.delete(source.node)
    const kinds: StepKind[] = ['position', 'release']
    return kinds.flatMap((kind) => this.collect(source, kind, () => true)?.step ?? [])
  }

  /** The subscription was removed. */
  drop(node: string): void {
    this.#unknown.delete(node)
    this.resume({ node, database: '', table: '' })
  }
}
