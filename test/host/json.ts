// Answers as JSON text, with what JSON has no notation for: bigints and binary. Dates are ISO strings by themselves.

export const toJson = (value: unknown): string =>
  // A function, not an arrow: `this` holds the value before Buffer's own toJSON got at it.
  JSON.stringify(value, function (this: Record<string, unknown>, name, each) {
    const raw = this[name]
    if (raw instanceof Uint8Array) return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength).toString('base64')
    if (raw instanceof Set) return [...raw]
    if (typeof raw === 'bigint') return Number.isSafeInteger(Number(raw)) ? Number(raw) : String(raw)
    return each
  })
