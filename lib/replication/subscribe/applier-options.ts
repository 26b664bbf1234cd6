// What an applier needs of the other parts, and the steps that it takes.

import type {
  ApplyResult,
  Checkpoint,
  CopyPosition,
  Host,
  RemoteTable,
  RemoteTransaction,
  Transaction,
} from '../../host/host.ts'
import type { ReplicationCounters } from '../../observe/metrics.ts'
import type { MissingRange } from '../missing-ranges.ts'
import type { CopyOptions, Step, StepKind } from './unsettled-steps.ts'

export type ApplierOptions = {
  host: Host
  node: string
  relayEnabled: boolean
  counters: ReplicationCounters
  relay(transactions: Transaction[]): void
  /** These transactions were committed although the host had rejected them, and nothing has reported them yet. */
  onRecovered?(source: RemoteTable, transactions: number, sequence: number): void
  /** These transactions were committed. Not called for copied rows. */
  onApplied?(source: RemoteTable, transactions: readonly RemoteTransaction[]): void
  /** A batch was committed. `result` is what the host says about it, if it does. */
  onCommitted?(source: RemoteTable, kind: StepKind, result: ApplyResult): void
  /** The source reports that it copied rows: the copy to run now, if `current` is under way. Default: `current`. */
  onSourceChanged?(source: RemoteTable, current: CopyPosition | undefined): CopyPosition | undefined
  /** Throws, or rejects, when a transaction does not fit the local table. */
  validate(source: RemoteTable, transactions: readonly RemoteTransaction[]): unknown
}

/** Transactions in quarantine: `count` of them from `index` on. */
export type QuarantinedRange = { epoch: string; index: number; count: number }

/** The transactions to apply, and the checkpoint to store with them. */
export type ApplyStep = Pick<Step, 'checkpoint' | 'transactions' | 'copy'> & {
  duplicates?: number
  /** See Selection. Default: all. */
  relayable?: RemoteTransaction[]
  relayed?: Transaction[]
}
/** Undefined: nothing to change. */
export type Plan = (current: Checkpoint | undefined) => ApplyStep | undefined

/** One step of a copy: rows, and the copy position behind them. */
export type CopyStep = CopyOptions & {
  /** The subscribers of the local table have to learn of the rows. */
  announce?: boolean
  /** With this step, everything that the source had when the copy began is here: what was lost before is repaired. */
  completes?: boolean
  /** The position before, as `checkpointOf` returns it. */
  from: CopyPosition | undefined
  /** Undefined: the copy has ended. */
  to: CopyPosition | undefined
}

/** See Applier.move. */
export type MoveOptions = { [Name in 'request' | 'staleSince']?: Checkpoint[Name] | undefined } & {
  lost?: number
  /** Transactions of the source's stream that are lost. */
  missing?: readonly MissingRange[]
  newGaps?: number
  replayed?: number
  copy?: CopyPosition | undefined
  /** The subscribers of the local table are to copy what they lack. */
  announce?: boolean
}
