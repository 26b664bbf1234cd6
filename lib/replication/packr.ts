// MessagePack of records and primary keys, with the types of values that a database may hold.

import { Packr } from 'msgpackr'

const options = {
  mapsAsObjects: true,
  // Remote messages may contain circular references.
  structuredClone: false,
  useBigIntExtension: true,
  copyBuffers: true,
  encodeUndefinedAsNil: false,
  // Without it msgpackr encodes a typed array of wider elements with one byte for each element, and then unrelated memory.
  moreTypes: true,
}

export const packr = new Packr({ ...options, useRecords: false })
/** Packs objects as records, which HarperDB reads with the default options of msgpackr: it takes maps for objects of another kind. */
export const recordPackr = new Packr(options)
