// Lists of attributes in messages: of texts, or of objects, which HarperDB's versions give a `name`, an `attribute` or both.

/** The names in such a list. Other elements are left out. */
export function attributeNames(attributes: readonly unknown[] = []): string[] {
  return attributes.flatMap((each) => {
    const { attribute, name = attribute } = (typeof each === 'object' && each !== null ? each : { name: each }) as {
      attribute?: unknown
      name?: unknown
    }
    return typeof name === 'string' && name !== '' ? [name] : []
  })
}
