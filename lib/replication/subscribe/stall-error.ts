// What stalls a subscription until a later version runs here, or a missing table exists.

import { MetadataVersionError } from '../stream-metadata.ts'
import { MessageVersionError } from '../wire/frame.ts'
import { MissingTableError } from '../wire/message-chain.ts'
import { CheckpointVersionError } from './checkpoint-version.ts'

export type StallError = MessageVersionError | MetadataVersionError | CheckpointVersionError | MissingTableError

export const isStallError = (error: unknown): error is StallError =>
  isOfMessage(error) || error instanceof MetadataVersionError || error instanceof CheckpointVersionError

/** The next message is the reason. */
export const isOfMessage = (error: unknown): error is MessageVersionError | MissingTableError =>
  error instanceof MessageVersionError || error instanceof MissingTableError
