// What tests of a program that mounts this module need: a network without servers whose clock they turn, a database in memory,
// whole clusters, and what every Host must hold to.

export { type FaultOptions, MemoryNetwork, type MemoryNetworkOptions } from './mesh/memory/memory-network.ts'
export { eventually } from './testing/eventually.ts'
export { freePorts } from './testing/free-ports.ts'
export { type ContractCase, checkHost, type HostUnderTest, hostContract } from './testing/host-contract.ts'
export { MemoryHost, type MemoryHostOptions } from './testing/memory-host.ts'
export { type ClusterNode, type StartOptions, startCluster, TestingCluster } from './testing/start-cluster.ts'
export { TestClock, type TestClockOptions } from './testing/test-clock.ts'
export type { Timers } from './util/timers.ts'
