// Files of one JSON value a line, to which a process appends and the run reads.

import { readFile } from 'node:fs/promises'

/** Empty when there is no file. */
export async function readLines<T>(file: string): Promise<T[]> {
  const text = await readFile(file, 'utf8').catch(() => '')
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T)
}
