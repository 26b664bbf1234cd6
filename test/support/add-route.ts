// Adds a route to a configuration file. A separate program because Node's permissions are those of a process.

import { addRoutes } from '../../lib/manifest/manifest.ts'
import { ManifestStore } from '../../lib/manifest/store.ts'

const store = await ManifestStore.open(process.argv[2]!)
try {
  await store.commit((manifest) => addRoutes(manifest, 'hub', [{ host: 'h', port: 1 }]).manifest, 'api')
  process.stdout.write('done\n')
} finally {
  await store.close()
}
