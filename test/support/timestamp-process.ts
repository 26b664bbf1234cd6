// A process that commits into the database of a node: `timestamp-process.ts PATH NODE COUNT`. Prints its timestamps as JSON.

import { committedTimestamps } from './shared-database.ts'

const [path = '', node = '', count] = process.argv.slice(2)
process.stdout.write(JSON.stringify(await committedTimestamps(path, node, Number(count))))
