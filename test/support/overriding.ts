// A proxy that replaces some members of an object.

/** `target` with the members of `overrides`. Other methods run on the target itself and do not see the overrides. */
export const overriding = <T extends object>(target: T, overrides: Partial<T>): T =>
  new Proxy(target, {
    get(object, key) {
      if (key in overrides) return Reflect.get(overrides, key)
      const value: unknown = Reflect.get(object, key, object)
      return typeof value === 'function' ? value.bind(object) : value
    },
  })
