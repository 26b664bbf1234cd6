// Decodes the transactions of a source, and merges their timestamps into the local clock.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { decodeStored, type Frame, type StoredPart } from '../wire/frame.ts'
import type { Applier } from './applier.ts'

/** It goes to quarantine. The transaction is there when only its timestamp is the fault. */
export class UnusablePart {
  readonly fault: string
  readonly transaction: RemoteTransaction | undefined

  constructor(fault: string, transaction?: RemoteTransaction) {
    this.fault = fault
    this.transaction = transaction
  }
}

export type PartDecoderOptions = { source: RemoteTable; clock: HybridClock; applier: Applier }

export class PartDecoder {
  readonly #options: PartDecoderOptions

  constructor(options: PartDecoderOptions) {
    this.#options = options
  }

  decode(stored: StoredPart): RemoteTransaction | UnusablePart {
    try {
      return this.#checkTimestamp(decodeStored(this.#options.source, stored))
    } catch (error) {
      return new UnusablePart(reasonOf(error))
    }
  }

  /** The transaction at this offset of a frame. */
  decodeAt(frame: Frame, offset: number): RemoteTransaction | UnusablePart {
    try {
      return this.#checkTimestamp(frame.decode(this.#options.source, offset))
    } catch (error) {
      return new UnusablePart(reasonOf(error))
    }
  }

  #checkTimestamp(transaction: RemoteTransaction): RemoteTransaction | UnusablePart {
    const { source, clock, applier } = this.#options
    if (clock.merge(transaction.timestamp) || applier.isApplied(source, transaction)) return transaction
    // Its rows would win over every other write until that time.
    const fault = `timestamp ${transaction.timestamp} is too far in the future: the clock of one node is wrong`
    return new UnusablePart(fault, transaction)
  }
}
