// Answers as MessagePack, for callers that accept it: with binary values, dates and big integers, which JSON lacks.

import { Packr } from 'msgpackr'

export const MESSAGE_PACK = 'application/x-msgpack'

const packr = new Packr({ useRecords: false, moreTypes: true, useBigIntExtension: true })

export const toMessagePack = (answer: unknown): Buffer => packr.pack(answer)

export const isAccepted = (accept: string | undefined): boolean => accept?.toLowerCase().includes(MESSAGE_PACK) ?? false
