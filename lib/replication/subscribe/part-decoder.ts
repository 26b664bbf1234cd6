// Decodes the transactions of a source, and merges their timestamps into the local clock.

import { reasonOf } from '../../errors.ts'
import type { RemoteTable, RemoteTransaction } from '../../host/host.ts'
import type { HybridClock } from '../../host/hybrid-clock.ts'
import { decodeMessage, type Frame, type StoredPart } from '../wire/frame.ts'
import { type MessageExtras, MissingTableError, type TableLookup } from '../wire/message-chain.ts'
import type { Applier } from './applier.ts'
import type { LocalTables } from './local-tables.ts'

/** What is more, or less, than a transaction to apply. */
export class SpecialPart {
  /** With a `fault`, it goes to quarantine; then the transaction is there when only its timestamp is the fault. */
  readonly fault: string | undefined
  readonly transaction: RemoteTransaction | undefined
  /** What a message of HarperDB contains besides its transaction. */
  readonly extras: MessageExtras | undefined
  /** The reason why some of it cannot be applied: the transaction is applied, and the message goes to quarantine for the rest. */
  readonly unsupported: string | undefined

  constructor({
    fault,
    transaction,
    extras,
  }: { fault?: string; transaction?: RemoteTransaction; extras?: MessageExtras }) {
    this.fault = fault
    this.transaction = transaction
    this.extras = extras
    this.unsupported = extras && unsupportedIn(extras)
  }
}

export type PartDecoderContext = {
  clock: HybridClock
  tables: Pick<LocalTables, 'knownPrimaryKey' | 'refresh'>
  /** Whether the local node subscribes to this table of a remote node. */
  isSubscribed(table: RemoteTable): boolean
}

export type PartDecoderOptions = { source: RemoteTable; applier: Applier }

export class PartDecoder {
  readonly #context: PartDecoderContext
  readonly #options: PartDecoderOptions
  readonly #lookup: TableLookup

  constructor(context: PartDecoderContext, options: PartDecoderOptions) {
    this.#context = context
    this.#options = options
    const { tables, isSubscribed } = context
    const { source } = options
    this.#lookup = {
      primaryKeyOf: (table) => tables.knownPrimaryKey({ ...source, table }),
      isSubscribed: (table) => isSubscribed({ ...source, table }),
    }
  }

  /** Throws MissingTableError when the transaction also writes a subscribed table that does not exist here, as far as that is known. */
  decode(stored: StoredPart): RemoteTransaction | SpecialPart {
    try {
      const { transaction, extras } = decodeMessage(this.#options.source, stored, this.#lookup)
      const checked = this.#checkTimestamp(transaction)
      return extras && checked === transaction ? new SpecialPart({ transaction, extras }) : checked
    } catch (error) {
      if (error instanceof MissingTableError) throw error
      return new SpecialPart({ fault: reasonOf(error) })
    }
  }

  /** The transaction at this offset of a frame. Throws as `decode`. */
  decodeAt(frame: Frame, offset: number): RemoteTransaction | SpecialPart {
    if (frame.isSingle) return this.decode(frame.part(offset))
    try {
      return this.#checkTimestamp(frame.decode(this.#options.source, offset))
    } catch (error) {
      return new SpecialPart({ fault: reasonOf(error) })
    }
  }

  /** As `decodeAt`, with the tables that exist now. Rejects with MissingTableError, and as the host does. */
  async decodeAgain(frame: Frame, offset: number): Promise<RemoteTransaction | SpecialPart> {
    await this.#context.tables.refresh()
    return this.decodeAt(frame, offset)
  }

  #checkTimestamp(transaction: RemoteTransaction): RemoteTransaction | SpecialPart {
    const { source, applier } = this.#options
    if (this.#context.clock.merge(transaction.timestamp) || applier.isApplied(source, transaction)) return transaction
    // Its rows would win over every other write until that time.
    const fault = `timestamp ${transaction.timestamp} is too far in the future: the clock of one node is wrong`
    return new SpecialPart({ fault, transaction })
  }
}

function unsupportedIn({ unsupported }: MessageExtras): string | undefined {
  if (unsupported.length === 0) return undefined
  const operations = unsupported.map((operation) => `'${operation}'`).join(', ')
  return `contains the operation ${operations}, which cannot be applied here; its other writes are applied`
}
