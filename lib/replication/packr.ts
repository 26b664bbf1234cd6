// MessagePack of records and primary keys, with the types of values that a database may hold.

import { Packr } from 'msgpackr'

export const packr = new Packr({
  useRecords: false,
  mapsAsObjects: true,
  // Remote messages may contain circular references.
  structuredClone: false,
  useBigIntExtension: true,
  copyBuffers: true,
  encodeUndefinedAsNil: false,
  // Without it msgpackr encodes a typed array of wider elements with one byte for each element, and then unrelated memory.
  moreTypes: true,
})
