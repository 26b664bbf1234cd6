// Validates request bodies against their schemas: coerces strings, drops unknown keys, and reports every issue in HarperDB's
// words. typebox checks the leaves; objects and arrays are walked here, because typebox stops after eight issues.

import type { Static, TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/schema'
import { type Issue, invalidRequest } from '../errors.ts'

/** The keywords of a schema that the validation reads. */
type Shape = {
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly properties?: Readonly<Record<string, TSchema>>
  readonly required?: readonly string[]
  readonly items?: TSchema
  readonly minItems?: number
  /** Not part of JSON Schema: null counts as missing. */
  readonly nullIsMissing?: boolean
}
type LeafError = { readonly keyword: string; readonly params?: { readonly limit?: unknown }; readonly message?: string }
type Rule = (value: never, path: string) => Issue | undefined

const validators = new WeakMap<TSchema, Validator>()
const rules = new WeakMap<TSchema, Rule>()

const shapeOf = (schema: TSchema) => schema as Shape

/**
 * Adds a rule about several fields of an object, or items of an array. It runs only if these are valid themselves.
 * Must be the outermost call: `Type.Optional` returns another schema, without the rule.
 */
export function withRule<Schema extends TSchema>(
  schema: Schema,
  rule: (value: Static<Schema>, path: string) => Issue | undefined,
): Schema {
  rules.set(schema, rule as Rule)
  return schema
}

/** Compiles the validators of a schema, so that the first request does not wait for it. */
export function compileBody<Schema extends TSchema>(schema: Schema): Schema {
  const { properties, items } = shapeOf(schema)
  for (const property of Object.values(properties ?? {})) compileBody(property)
  if (items) compileBody(items)
  if (!properties && !items) validators.set(schema, Compile(schema) as unknown as Validator)
  return schema
}

/** The number or boolean that a string contains; any other value unchanged. */
function coerce({ type }: Shape, value: unknown): unknown {
  if (typeof value !== 'string') return value
  const text = value.trim()
  if (type === 'boolean') return /^true$/i.test(text) ? true : /^false$/i.test(text) ? false : value
  if (type === 'number' || type === 'integer')
    return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : value
  return value
}

// HarperDB's texts: unchanged, because its users' scripts may match on them.
const TYPE_TEXTS: Record<string, string> = {
  string: 'must be a string',
  number: 'must be a number',
  integer: 'must be a number',
  boolean: 'must be a boolean',
  array: 'must be an array',
  object: 'must be of type object',
}

/** The predicate of the sentence about an invalid leaf. HarperDB's texts, as above. */
function leafText(shape: Shape, value: unknown, { keyword, params, message }: LeafError): string {
  if (keyword === 'enum') return `must be one of [${(shape.enum ?? []).join(', ')}]`
  if (keyword === 'minLength') return 'is not allowed to be empty'
  if (keyword === 'minimum') return `must be greater than or equal to ${params?.limit}`
  if (keyword === 'maximum') return `must be less than or equal to ${params?.limit}`
  if (keyword === 'type') {
    const isNumber = typeof value === 'number' && !Number.isNaN(value)
    return isNumber && shape.type === 'integer'
      ? 'must be an integer'
      : (TYPE_TEXTS[shape.type ?? ''] ?? 'is not valid')
  }
  return message ?? 'is not valid'
}

const isUnsafe = (value: unknown): boolean => typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER

class BodyReader {
  readonly issues: Issue[] = []

  #addIssue(path: string, text: string): undefined {
    this.issues.push({ path, message: `'${path}' ${text}` })
  }

  read(schema: TSchema, value: unknown, path: string): unknown {
    const shape = shapeOf(schema)
    const issuesBefore = this.issues.length
    const result = shape.properties
      ? this.#object(shape, value, path)
      : shape.items
        ? this.#array(shape, value, path)
        : this.#leaf(schema, shape, value, path)
    const rule = rules.get(schema)
    if (rule && this.issues.length === issuesBefore) {
      const issue = rule(result as never, path)
      if (issue) this.issues.push(issue)
    }
    return result
  }

  #object(shape: Shape, value: unknown, path: string): unknown {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return this.#addIssue(path, TYPE_TEXTS.object ?? '')
    const result: Record<string, unknown> = {}
    for (const [key, schema] of Object.entries(shape.properties ?? {})) {
      // Own properties only: a body must not inject values through its prototype.
      const given = Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : undefined
      const fieldPath = path === '' ? key : `${path}.${key}`
      if (given === undefined || (given === null && shapeOf(schema).nullIsMissing)) {
        if (shape.required?.includes(key)) this.#addIssue(fieldPath, 'is required')
      } else {
        result[key] = this.read(schema, given, fieldPath)
      }
    }
    return result
  }

  #array(shape: Shape, value: unknown, path: string): unknown {
    if (!Array.isArray(value)) return this.#addIssue(path, TYPE_TEXTS.array ?? '')
    const { items, minItems = 0 } = shape
    if (value.length < minItems) return this.#addIssue(path, `must contain at least ${minItems} items`)
    // Array.from turns the holes of a sparse array into undefined.
    return Array.from(value, (item: unknown, index) => this.read(items as TSchema, item, `${path}[${index}]`))
  }

  #leaf(schema: TSchema, shape: Shape, given: unknown, path: string): unknown {
    const value = coerce(shape, given)
    const validator = validators.get(schema) ?? compileLeaf(schema)
    if ((shape.type === 'number' || shape.type === 'integer') && isUnsafe(value))
      return this.#addIssue(path, 'must be a safe number')
    if (validator.Check(value)) return value
    // Only the first error: the others may follow from it.
    const [first] = validator.Errors(value)[1] as LeafError[]
    return this.#addIssue(path, leafText(shape, value, first ?? { keyword: 'type' }))
  }
}

function compileLeaf(schema: TSchema): Validator {
  compileBody(schema)
  return validators.get(schema) as Validator
}

/**
 * The body in the form of its schema: known keys only, strings coerced to numbers and booleans. Throws `invalid_request` with
 * every issue, in the order of the schema. A body that is not an object is read as `{}`.
 */
export function readBody<Schema extends TSchema>(schema: Schema, body: unknown): Static<Schema> {
  const reader = new BodyReader()
  const isObject = typeof body === 'object' && body !== null && !Array.isArray(body)
  const value = reader.read(schema, isObject ? body : {}, '')
  if (reader.issues.length > 0) throw invalidRequest(reader.issues)
  return value as Static<Schema>
}
