// Decodes the transactions of a source, and merges their timestamps into the local clock.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { decodeStored, type StoredPart } from '../wire/frame.ts'
import type { Applier } from './applier.ts'

/** With `fault`, it goes to quarantine; the transaction is there when only its timestamp is the fault. */
export type DecodedPart =
  | { transaction: RemoteTransaction; fault?: undefined }
  | { transaction?: RemoteTransaction; fault: string }

export type PartDecoderOptions = { source: RemoteTable; clock: HybridClock; applier: Applier }

export class PartDecoder {
  readonly #options: PartDecoderOptions

  constructor(options: PartDecoderOptions) {
    this.#options = options
  }

  decode(stored: StoredPart): DecodedPart {
    const { source, clock, applier } = this.#options
    try {
      const transaction = decodeStored(source, stored)
      if (clock.merge(transaction.timestamp) || applier.isApplied(source, transaction)) return { transaction }
      // Its rows would win over every other write until that time.
      const fault = `timestamp ${transaction.timestamp} is too far in the future: the clock of one node is wrong`
      return { transaction, fault }
    } catch (error) {
      return { fault: reasonOf(error) }
    }
  }
}
