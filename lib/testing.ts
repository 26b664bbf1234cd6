// What tests of a program that mounts this module need: a network without servers.

export { type FaultOptions, MemoryNetwork, type MemoryNetworkOptions } from './mesh/memory/network.ts'
