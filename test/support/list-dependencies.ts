// `npm run licenses`: writes the lists of packages and their licences into lib/README.md and test/support/README.md, from package-lock.json. Needs no network.

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

type LockedPackage = { version: string; license?: string; dev?: boolean; optional?: boolean; devOptional?: boolean }
export type Dependency = { name: string; version: string; license: string; isDevelopment: boolean; isOptional: boolean }

/** All packages of the lock file, by name and version. */
export async function readDependencies(): Promise<Dependency[]> {
  const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>
  }
  return Object.entries(packages)
    .filter(([path]) => path !== '')
    .map(([path, { version, license = 'unknown', dev = false, optional = false, devOptional = false }]) => ({
      name: path.split('node_modules/').at(-1)!,
      version,
      license,
      isDevelopment: dev,
      isOptional: optional || devOptional,
    }))
    .sort((a, b) => (a.name === b.name ? (a.version < b.version ? -1 : 1) : a.name < b.name ? -1 : 1))
}

const link = (name: string) => `[${name}](https://www.npmjs.com/package/${name})`

/** The packages that an installation of enmesh brings along. */
export const runtimeTable = (dependencies: readonly Dependency[]): string =>
  [
    '| package | version | licence | |',
    '|---|---|---|---|',
    ...dependencies
      .filter(({ isDevelopment }) => !isDevelopment)
      .map(
        ({ name, version, license, isOptional }) =>
          `| ${link(name)} | ${version} | ${license} | ${isOptional ? 'optional' : ''} |`,
      ),
  ].join('\n')

/** The other packages by licence, without versions. */
export function developmentTable(dependencies: readonly Dependency[]): string {
  const names = new Map<string, Set<string>>()
  for (const { name, license, isDevelopment } of dependencies)
    if (isDevelopment) names.set(license, (names.get(license) ?? new Set()).add(name))
  const rows = [...names].sort(([a], [b]) => (a < b ? -1 : 1))
  return [
    '| licence | packages for development |',
    '|---|---|',
    ...rows.map(([license, packages]) => `| ${license} | ${[...packages].join(', ')} |`),
  ].join('\n')
}

/** Each list, and the file that contains it. */
export const lists: readonly { file: string; table: (dependencies: readonly Dependency[]) => string }[] = [
  { file: 'lib/README.md', table: runtimeTable },
  { file: 'test/support/README.md', table: developmentTable },
]

async function write(): Promise<void> {
  const dependencies = await readDependencies()
  for (const { file, table } of lists) {
    const text = await readFile(join(root, file), 'utf8')
    const lines = table(dependencies)
    const [header] = lines.split('\n')
    const start = text.indexOf(header!)
    if (start < 0) throw new Error(`${file} has no table '${header}'`)
    const rest = text.slice(start)
    const end = rest.indexOf('\n\n')
    await writeFile(join(root, file), text.slice(0, start) + lines + (end < 0 ? '\n' : rest.slice(end)))
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await write()
