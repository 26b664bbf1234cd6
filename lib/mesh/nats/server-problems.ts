// What is wrong with the local servers although they work, or are being replaced.

import type { MeshProblem } from '../mesh.ts'

export type ServerFacts = {
  /** Why the hub cannot be started. */
  hubFailure: string | undefined
  /** Routes of the hub's configuration, and connections to other hubs; undefined: not known yet. */
  configuredRoutes: number
  linkedRoutes: number | undefined
  /** Why the disk of the streams is nearly full. */
  lowDisk: string | undefined
  /** One sentence each. */
  certificates: readonly string[]
  exposures: readonly string[]
}

export function serverProblems(facts: ServerFacts): MeshProblem[] {
  const { hubFailure, configuredRoutes, linkedRoutes, lowDisk, certificates, exposures } = facts
  const problems: MeshProblem[] = []
  if (hubFailure !== undefined) problems.push({ code: 'hub_failed', message: hubFailure })
  else if (configuredRoutes > 0 && linkedRoutes === 0)
    problems.push({
      code: 'no_route_linked',
      message: `the hub has ${configuredRoutes} routes and is linked with no other hub`,
    })
  if (lowDisk !== undefined) problems.push({ code: 'disk_low', message: lowDisk })
  if (certificates.length > 0) problems.push({ code: 'certificate_expires', message: certificates.join(' ') })
  if (exposures.length > 0) problems.push({ code: 'server_exposed', message: exposures.join(' ') })
  return problems
}
