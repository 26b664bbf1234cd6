// The types of operations as the manager offers them: as JSON requests and as methods.

import type { OperationName, OperationOptions, RequestOf, ResponseOf } from '../operations/index.ts'

/** Operations whose body may be left out: every field is optional. */
type WithoutBody = 'cluster_get_routes' | 'cluster_status' | 'cluster_network'

/** One operation as a method of the manager. */
export type OperationMethod<Name extends OperationName> = Name extends WithoutBody
  ? (body?: RequestOf<Name>, options?: OperationOptions) => Promise<ResponseOf<Name>>
  : (body: RequestOf<Name>, options?: OperationOptions) => Promise<ResponseOf<Name>>

/** The JSON request of an operation; without a name, of any. */
export type OperationRequest<Name extends OperationName = OperationName> = Name extends OperationName
  ? { operation: Name } & RequestOf<Name>
  : never

/** The answer of an operation; without a name, of any. */
export type OperationResponse<Name extends OperationName = OperationName> = ResponseOf<Name>

/** A request that the compiler knows nothing about. One that names an operation must have the type of that operation. */
export type UntypedRequest<Body> = Body extends { readonly operation: OperationName } ? never : unknown
