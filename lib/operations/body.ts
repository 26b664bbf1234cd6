// Request bodies checked against their schemas: strings coerced, unknown keys dropped, every fault told in the contract's
// words. Leaves are checked by typebox; objects and lists are walked here, because typebox stops at eight faults.

import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/schema'
import { type Issue, invalidRequest } from '../errors.ts'

/** What the walk needs of a schema. */
type Shape = {
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly properties?: Readonly<Record<string, TSchema>>
  readonly required?: readonly string[]
  readonly items?: TSchema
  readonly minItems?: number
  /** Ours: null counts as not given. */
  readonly nullIsMissing?: boolean
}
type Fault = { readonly keyword: string; readonly params?: { readonly limit?: unknown }; readonly message?: string }
type Rule = (value: never, path: string) => Issue | undefined

const validators = new WeakMap<TSchema, Validator>()
const rules = new WeakMap<TSchema, Rule>()

const shapeOf = (schema: TSchema) => schema as Shape

/**
 * Adds a rule about several fields of an object, or items of a list; it runs when these have no faults of their own.
 * Outermost: `Type.Optional` makes another schema, without the rule.
 */
export function withRule<Schema extends TSchema>(
  schema: Schema,
  rule: (value: Static<Schema>, path: string) => Issue | undefined,
): Schema {
  rules.set(schema, rule as Rule)
  return schema
}

/** Compiles what `readBody` will need of that schema; to be called when a module is loaded. */
export function compileBody<Schema extends TSchema>(schema: Schema): Schema {
  const { properties, items } = shapeOf(schema)
  for (const property of Object.values(properties ?? {})) compileBody(property)
  if (items) compileBody(items)
  if (!properties && !items) validators.set(schema, Compile(schema) as unknown as Validator)
  return schema
}

/** The value that a string stands for; anything else, and a string that stands for none, as it is. */
function coerce({ type }: Shape, value: unknown): unknown {
  if (typeof value !== 'string') return value
  const text = value.trim()
  if (type === 'boolean') return /^true$/i.test(text) ? true : /^false$/i.test(text) ? false : value
  if (type === 'number' || type === 'integer')
    return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : value
  return value
}

const typeTexts: Record<string, string> = {
  string: 'must be a string',
  number: 'must be a number',
  integer: 'must be a number',
  boolean: 'must be a boolean',
  array: 'must be an array',
  object: 'must be of type object',
}

/** The end of the sentence that says what is wrong with a leaf. */
function leafText(shape: Shape, value: unknown, { keyword, params, message }: Fault): string {
  if (keyword === 'enum') return `must be one of [${(shape.enum ?? []).join(', ')}]`
  if (keyword === 'minLength') return 'is not allowed to be empty'
  if (keyword === 'minimum') return `must be greater than or equal to ${params?.limit}`
  if (keyword === 'maximum') return `must be less than or equal to ${params?.limit}`
  if (keyword === 'type') {
    const isNumber = typeof value === 'number' && !Number.isNaN(value)
    return isNumber && shape.type === 'integer' ? 'must be an integer' : (typeTexts[shape.type ?? ''] ?? 'is not valid')
  }
  return message ?? 'is not valid'
}

const isUnsafe = (value: unknown): boolean => typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER

class Walk {
  readonly issues: Issue[] = []

  fault(path: string, text: string): undefined {
    this.issues.push({ path, message: `'${path}' ${text}` })
  }

  value(schema: TSchema, value: unknown, path: string): unknown {
    const shape = shapeOf(schema)
    const before = this.issues.length
    const result = shape.properties
      ? this.#object(shape, value, path)
      : shape.items
        ? this.#array(shape, value, path)
        : this.#leaf(schema, shape, value, path)
    const rule = rules.get(schema)
    if (rule && this.issues.length === before) {
      const issue = rule(result as never, path)
      if (issue) this.issues.push(issue)
    }
    return result
  }

  #object(shape: Shape, value: unknown, path: string): unknown {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return this.fault(path, typeTexts.object ?? '')
    const result: Record<string, unknown> = {}
    for (const [key, schema] of Object.entries(shape.properties ?? {})) {
      // Only what the body itself has: nothing is believed that came by way of a prototype.
      const given = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined
      const below = path === '' ? key : `${path}.${key}`
      if (given === undefined || (given === null && shapeOf(schema).nullIsMissing)) {
        if (shape.required?.includes(key)) this.fault(below, 'is required')
      } else {
        result[key] = this.value(schema, given, below)
      }
    }
    return result
  }

  #array(shape: Shape, value: unknown, path: string): unknown {
    if (!Array.isArray(value)) return this.fault(path, typeTexts.array ?? '')
    const { items, minItems = 0 } = shape
    if (value.length < minItems) return this.fault(path, `must contain at least ${minItems} items`)
    // A list with holes has undefined there.
    return Array.from(value, (item: unknown, index) => this.value(items as TSchema, item, `${path}[${index}]`))
  }

  #leaf(schema: TSchema, shape: Shape, given: unknown, path: string): unknown {
    const value = coerce(shape, given)
    const validator = validators.get(schema) ?? compileLeaf(schema)
    if ((shape.type === 'number' || shape.type === 'integer') && isUnsafe(value))
      return this.fault(path, 'must be a safe number')
    if (validator.Check(value)) return value
    // The first fault is the one to mend: the others may follow from it.
    const [fault] = validator.Errors(value)[1] as Fault[]
    return this.fault(path, leafText(shape, value, fault ?? { keyword: 'type' }))
  }
}

function compileLeaf(schema: TSchema): Validator {
  compileBody(schema)
  return validators.get(schema) as Validator
}

/**
 * The body as its schema says: only known keys, strings coerced to the numbers and booleans they stand for. Throws
 * `invalid_request` with every fault, in the order of the schema. A body that is no object has no keys.
 */
export function readBody<Schema extends TSchema>(schema: Schema, body: unknown): Static<Schema> {
  const walk = new Walk()
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body)
  const value = walk.value(schema, isObject ? body : {}, '')
  if (walk.issues.length > 0) throw invalidRequest(walk.issues)
  return value as Static<Schema>
}
