// The entry point `enmesh/testing`, for tests of programs that embed enmesh: clusters, a network in memory with a clock, a database in
// memory, and the contracts of the ports `Host` and `Mesh`. Types beyond `Mesh` itself are for implementers of that port.

export type { DisturbOptions } from './mesh/memory/disturbance.ts'
export { type FaultOptions, MemoryNetwork, type MemoryNetworkOptions } from './mesh/memory/memory-network.ts'
export {
  type Entry,
  type ExpectedLast,
  type Headers,
  type Member,
  MeshError,
  type MeshErrorCode,
  type MeshListener,
  type Message,
  type NameCheck,
  type Reader,
  type RequestOptions,
  type StreamLimits,
  type StreamState,
  type TableName,
} from './mesh/mesh.ts'
export type { CaseContext, ContractCase, SkippedCase } from './testing/contract-case.ts'
export { eventually } from './testing/eventually.ts'
export { freePorts } from './testing/free-ports.ts'
export { checkHost, type HostUnderTest, hostContract } from './testing/host-contract/index.ts'
export { MemoryHost, type MemoryHostOptions } from './testing/memory-host.ts'
export { checkMesh, type MeshContract, meshContract, type NetworkUnderTest } from './testing/mesh-contract/index.ts'
export { type ClusterNode, type StartOptions, startCluster, TestingCluster } from './testing/start-cluster.ts'
export { TestClock, type TestClockOptions } from './testing/test-clock.ts'
export type { Timers } from './util/timers.ts'
