// A process that commits into the database of a node: `timestamp-process.ts PATH NODE COUNT`. Prints its timestamps as JSON.

import { committedTimestamps, openShared } from './shared-database.ts'

const [path = '', node = '', count] = process.argv.slice(2)
const database = openShared(path)
process.stdout.write(JSON.stringify(committedTimestamps(database, node, Number(count))))
await database.close()
