// JSON text of answers, including types that JSON lacks: binary values as base64, bigints as numbers or strings, sets as arrays.

export const toJson = (value: unknown): string =>
  // Not an arrow function: `this` holds the raw value, before Buffer's toJSON converts it.
  JSON.stringify(value, function (this: Record<string, unknown>, name, each) {
    const raw = this[name]
    if (raw instanceof Uint8Array) return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64')
    if (raw instanceof Set) return [...raw]
    if (typeof raw === 'bigint') return Number.isSafeInteger(Number(raw)) ? Number(raw) : String(raw)
    return each
  })
