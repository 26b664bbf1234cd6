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

/** Words of a bucket: its sum, then its number of rows; together, so that a row touches one place in memory. */
const STRIDE = WORDS + 1

type Words = Uint32Array

function addDigest(words: Words, base: number, digest: RowDigest): void {
  let carry = 0
  for (let word = 0; word < WORDS; word++) {
    const at = 4 * word
    const value =
      digest.charCodeAt(at) |
      (digest.charCodeAt(at + 1) << 8) |
      (digest.charCodeAt(at + 2) << 16) |
      (digest.charCodeAt(at + 3) << 24)
    carry = addWord(words, base + word, (value >>> 0) + carry)
  }
  words[base + WORDS]!++
}

/** Returns the carry. */
function addWord(words: Words, index: number, value: number): number {
  const total = words[index]! + value
  words[index] = total >>> 0
  return total > 0xffffffff ? 1 : 0
}

/** The sums of all buckets. */
export class BucketSums {
  readonly buckets: number
  readonly #words: Words

  constructor(buckets: number) {
    this.buckets = buckets
    this.#words = new Uint32Array(STRIDE * buckets)
  }

  add({ key, row }: KeyedRow, rules: HashRules): void {
    const identity = keyIdentity(key)
    const text = rowText(identity, row, rules)
    if (text !== undefined) addDigest(this.#words, STRIDE * bucketOf(identity, this.buckets), digestOf(text))
  }

  count(bucket: number): number {
    return this.#words[STRIDE * bucket + WORDS]!
  }

  /** The sum of all buckets as hexadecimal digits: equal for tables with the same rows, whatever their number of buckets. */
  digest(): string {
    const total = this.fold(1).#words
    let text = ''
    for (let word = WORDS - 1; word >= 0; word--) text += total[word]!.toString(16).padStart(8, '0')
    return text
  }

  /** The same rows in fewer buckets. */
  fold(buckets: number): BucketSums {
    if (buckets === this.buckets) return this
    const folded = new BucketSums(buckets)
    for (let bucket = 0; bucket < this.buckets; bucket++)
      if (this.count(bucket) > 0) folded.#addBucket(bucket & (buckets - 1), this.#words, STRIDE * bucket)
    return folded
  }

  /** Adds what `PartialSums.encode` returned. Throws RowPageError. */
  addEncoded(data: Uint8Array): void {
    if (data.byteLength % ENTRY_BYTES !== 0) throw new RowPageError('has incomplete sums')
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    const words = new Uint32Array(STRIDE)
    for (let at = 0; at < data.byteLength; at += ENTRY_BYTES) {
      const bucket = view.getUint32(at, true)
      if (bucket >= this.buckets) throw new RowPageError(`has bucket ${bucket} of ${this.buckets}`)
      words[WORDS] = view.getUint32(at + 4, true)
      for (let word = 0; word < WORDS; word++) words[word] = view.getUint32(at + 8 + 4 * word, true)
      this.#addBucket(bucket, words, 0)
    }
  }

  #addBucket(bucket: number, words: Words, from: number): void {
    const base = STRIDE * bucket
    let carry = 0
    for (let word = 0; word < WORDS; word++) carry = addWord(this.#words, base + word, words[from + word]! + carry)
    this.#words[base + WORDS]! += words[from + WORDS]!
  }

  /** The buckets that differ, in order. */
  differences(other: BucketSums): number[] {
    const found: number[] = []
    for (let bucket = 0; bucket < this.buckets; bucket++) if (!this.#isEqual(other, bucket)) found.push(bucket)
    return found
  }

  #isEqual(other: BucketSums, bucket: number): boolean {
    for (let index = STRIDE * bucket; index < STRIDE * (bucket + 1); index++)
      if (this.#words[index] !== other.#words[index]) return false
    return true
  }
}

const FIRST_SLOTS = 1_024

/** The sums of some rows of a table: only the buckets in which they are. */
export class PartialSums {
  readonly #buckets: number
  /** By bucket: the number of its slot, from 1 on. The system clears only the pages of it that are used. */
  readonly #slots: Uint32Array
  /** By slot. */
  #filled: Uint32Array = new Uint32Array(FIRST_SLOTS)
  #words: Words = new Uint32Array(STRIDE * FIRST_SLOTS)
  #size = 0

  constructor(buckets: number) {
    this.#buckets = buckets
    this.#slots = new Uint32Array(buckets)
  }

  add({ key, row }: KeyedRow, rules: HashRules): void {
    const identity = keyIdentity(key)
    const text = rowText(identity, row, rules)
    if (text === undefined) return
    // First, because it may replace the words.
    const slot = this.#slotOf(bucketOf(identity, this.#buckets))
    addDigest(this.#words, STRIDE * slot, digestOf(text))
  }

  #slotOf(bucket: number): number {
    const known = this.#slots[bucket]!
    if (known > 0) return known - 1
    if (this.#size === this.#filled.length) {
      this.#filled = enlarged(this.#filled)
      this.#words = enlarged(this.#words)
    }
    this.#filled[this.#size] = bucket
    this.#slots[bucket] = this.#size + 1
    return this.#size++
  }

  encode(): Uint8Array {
    const data = Buffer.allocUnsafe(ENTRY_BYTES * this.#size)
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    for (let slot = 0; slot < this.#size; slot++) {
      const [at, base] = [ENTRY_BYTES * slot, STRIDE * slot]
      view.setUint32(at, this.#filled[slot]!, true)
      view.setUint32(at + 4, this.#words[base + WORDS]!, true)
      for (let word = 0; word < WORDS; word++) view.setUint32(at + 8 + 4 * word, this.#words[base + word]!, true)
    }
    return data
  }
}

function enlarged(words: Uint32Array): Uint32Array {
  const larger = new Uint32Array(2 * words.length)
  larger.set(words)
  return larger
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
