// `npm run test:servers`: the integration tests on other versions of nats-server. Usage: see `usage` below.

import { exitWithUsage, readArguments } from './arguments.ts'
import { cacheDirectory, type NatsBinary, natsBinary, natsReleases } from './nats-servers.ts'
import { runSuites, type SuiteRun } from './suite-runs.ts'

const usage = `npm run test:servers -- [--only SERVER]... [--refresh] [FILE...]
  --only SERVER  ${natsReleases.map(({ name }) => name).join(', ')}, or the start of a version, such as 2.15; may be repeated (default: all)
  --refresh      fetch the servers again, even if they are in ${cacheDirectory}
  FILE...        only these tests (default: all integration tests)`

const { values, positionals } = readArguments(usage, {
  only: { type: 'string', multiple: true, default: [] },
  refresh: { type: 'boolean', default: false },
})

const names = new Set(natsReleases.map(({ name }) => name))
/** A version is known only once its binary is there. */
const isByVersion = values.only.some((only) => !names.has(only))
const isWanted = ({ name, version }: NatsBinary) =>
  values.only.length === 0 ||
  values.only.some((only) => only === name || version === only || version.startsWith(`${only}.`))

const runs: SuiteRun[] = []
const versions: string[] = []
for (const release of natsReleases) {
  if (values.only.length > 0 && !isByVersion && !values.only.includes(release.name)) continue
  try {
    const binary = await natsBinary(release, values.refresh)
    versions.push(binary.version)
    if (!isWanted(binary)) continue
    const env = { NATS_SERVER: binary.path }
    runs.push({ title: `nats-server ${binary.version}`, env })
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`)
    runs.push({ title: `nats-server of Debian ${release.suite}`, problem: 'could not be fetched, see above' })
  }
}
if (runs.length === 0)
  exitWithUsage(usage, `No server matches --only ${values.only.join(' --only ')}; there are ${versions.join(' and ')}`)

process.exitCode = (await runSuites(runs, positionals.length > 0 ? positionals : ['--integration'])) ? 0 : 1
