// Sums of the digests of rows, in buckets by key: the order of the rows does not matter, so both nodes read in their own.

import type { KeyedRow } from '../../host/host.ts'
import { keyIdentity } from './key-identity.ts'
import { digestOf, type HashRules, keyHash, type RowDigest, rowText } from './row-hash.ts'
import { RowPageError } from './row-page.ts'

/** The number of buckets is a power of two, at most this. */
export const MAX_BUCKETS = 2 ** 20
const ROWS_PER_BUCKET = 32
/** 32 bits each: a sum is modulo 2^128. */
const WORDS = 4
/** Bucket, count and sum. */
const ENTRY_BYTES = 8 + 4 * WORDS

/** One bucket for about 32 rows. */
export function bucketsFor(rows: number): number {
  const wanted = Math.max(1, rows / ROWS_PER_BUCKET)
  return Math.min(2 ** Math.ceil(Math.log2(wanted)), MAX_BUCKETS)
}

export const isBucketCount = (buckets: number): boolean =>
  buckets >= 1 && buckets <= MAX_BUCKETS && Number.isInteger(Math.log2(buckets))

export const bucketOf = (identity: string, buckets: number): number => keyHash(identity) & (buckets - 1)

type Words = { [index: number]: number }

function addDigest(sums: Words, slot: number, digest: RowDigest): void {
  let carry = 0
  for (let word = 0; word < WORDS; word++) {
    const at = 4 * word
    const value =
      digest.charCodeAt(at) |
      (digest.charCodeAt(at + 1) << 8) |
      (digest.charCodeAt(at + 2) << 16) |
      (digest.charCodeAt(at + 3) << 24)
    carry = addWord(sums, WORDS * slot + word, (value >>> 0) + carry)
  }
}

/** Returns the carry. */
function addWord(sums: Words, index: number, value: number): number {
  const total = sums[index]! + value
  sums[index] = total >>> 0
  return total > 0xffffffff ? 1 : 0
}

/** The sums of all buckets. */
export class BucketSums {
  readonly buckets: number
  readonly #sums: Uint32Array
  readonly #counts: Uint32Array

  constructor(buckets: number) {
    this.buckets = buckets
    this.#sums = new Uint32Array(WORDS * buckets)
    this.#counts = new Uint32Array(buckets)
  }

  add({ key, row }: KeyedRow, rules: HashRules): void {
    const identity = keyIdentity(key)
    const text = rowText(identity, row, rules)
    if (text === undefined) return
    const bucket = bucketOf(identity, this.buckets)
    addDigest(this.#sums, bucket, digestOf(text))
    this.#counts[bucket]!++
  }

  count(bucket: number): number {
    return this.#counts[bucket]!
  }

  /** The same rows in fewer buckets. */
  fold(buckets: number): BucketSums {
    const folded = new BucketSums(buckets)
    for (let bucket = 0; bucket < this.buckets; bucket++)
      if (this.#counts[bucket]! > 0)
        folded.#addBucket(bucket & (buckets - 1), this.#counts[bucket]!, this.#sums, WORDS * bucket)
    return folded
  }

  /** Adds what `PartialSums.encode` returned. Throws RowPageError. */
  addEncoded(data: Uint8Array): void {
    if (data.byteLength % ENTRY_BYTES !== 0) throw new RowPageError('has incomplete sums')
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    const words = new Uint32Array(WORDS)
    for (let at = 0; at < data.byteLength; at += ENTRY_BYTES) {
      const bucket = view.getUint32(at, true)
      if (bucket >= this.buckets) throw new RowPageError(`has bucket ${bucket} of ${this.buckets}`)
      for (let word = 0; word < WORDS; word++) words[word] = view.getUint32(at + 8 + 4 * word, true)
      this.#addBucket(bucket, view.getUint32(at + 4, true), words, 0)
    }
  }

  #addBucket(bucket: number, count: number, words: Words, from: number): void {
    this.#counts[bucket]! += count
    let carry = 0
    for (let word = 0; word < WORDS; word++)
      carry = addWord(this.#sums, WORDS * bucket + word, words[from + word]! + carry)
  }

  /** The buckets that differ, in order. */
  differences(other: BucketSums): number[] {
    const found: number[] = []
    for (let bucket = 0; bucket < this.buckets; bucket++) if (!this.#isEqual(other, bucket)) found.push(bucket)
    return found
  }

  #isEqual(other: BucketSums, bucket: number): boolean {
    if (this.#counts[bucket] !== other.#counts[bucket]) return false
    for (let index = WORDS * bucket; index < WORDS * (bucket + 1); index++)
      if (this.#sums[index] !== other.#sums[index]) return false
    return true
  }
}

/** The sums of some rows of a table: only the buckets in which they are. */
export class PartialSums {
  readonly #buckets: number
  readonly #slots = new Map<number, number>()
  readonly #sums: number[] = []
  readonly #counts: number[] = []

  constructor(buckets: number) {
    this.#buckets = buckets
  }

  add({ key, row }: KeyedRow, rules: HashRules): void {
    const identity = keyIdentity(key)
    const text = rowText(identity, row, rules)
    if (text === undefined) return
    const bucket = bucketOf(identity, this.#buckets)
    let slot = this.#slots.get(bucket)
    if (slot === undefined) {
      slot = this.#slots.size
      this.#slots.set(bucket, slot)
      this.#sums.push(0, 0, 0, 0)
      this.#counts.push(0)
    }
    addDigest(this.#sums, slot, digestOf(text))
    this.#counts[slot]!++
  }

  encode(): Uint8Array {
    const data = Buffer.alloc(ENTRY_BYTES * this.#slots.size)
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    let at = 0
    for (const [bucket, slot] of this.#slots) {
      view.setUint32(at, bucket, true)
      view.setUint32(at + 4, this.#counts[slot]!, true)
      for (let word = 0; word < WORDS; word++) view.setUint32(at + 8 + 4 * word, this.#sums[WORDS * slot + word]!, true)
      at += ENTRY_BYTES
    }
    return data
  }
}

/** A set of buckets as a bitmap. */
export class BucketSet {
  readonly bytes: Uint8Array

  /** Without `bytes` it is empty. */
  constructor(buckets: number, bytes: Uint8Array = new Uint8Array(Math.ceil(buckets / 8))) {
    if (bytes.byteLength !== Math.ceil(buckets / 8)) throw new RowPageError('has an invalid set of buckets')
    this.bytes = bytes
  }

  add(bucket: number): void {
    this.bytes[bucket >> 3]! |= 1 << (bucket & 7)
  }

  has(bucket: number): boolean {
    return (this.bytes[bucket >> 3]! & (1 << (bucket & 7))) !== 0
  }
}
