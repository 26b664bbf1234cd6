// Something with a few of its members replaced, for tests that have to be in between.

/** `target`, but for what `overrides` has. Its methods run on the target itself: they do not see what is replaced. */
export const overriding = <T extends object>(target: T, overrides: Partial<T>): T =>
  new Proxy(target, {
    get(object, key) {
      if (key in overrides) return Reflect.get(overrides, key)
      const value: unknown = Reflect.get(object, key, object)
      return typeof value === 'function' ? value.bind(object) : value
    },
  })
