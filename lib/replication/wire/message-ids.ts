// The version of stream messages, and their ids.

/**
 * Version of stream messages, in their header `v`. A node reads this one and the one before.
 *
 * 1: the body is a MessagePack array of byte strings, one for each transaction (see part.ts), or a single message (see
 *    single-message-format.ts). The headers are `Nats-Msg-Id` (`<epoch>:<first>:<count>`), `origin` (the owner of the stream), `epoch`,
 *    `first` (running number, in the epoch, of the first transaction, from 1) and `count`.
 * Without a version: a message of HarperDB, one transaction, whose running number is its sequence.
 */
export const MESSAGE_VERSION = 1

/** The same id is always the same content. */
export const frameId = (epoch: string, first: number, count: number): string => `${epoch}:${first}:${count}`
