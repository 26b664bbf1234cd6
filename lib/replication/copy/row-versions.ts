// Keys of rows with their digests, in answers between nodes.

import type { PrimaryKey } from '../../host/host.ts'
import { packr } from '../packr.ts'
import { DIGEST_BYTES, type RowDigest } from './row-hash.ts'
import { checkKey, RowPageError, unpack } from './row-page.ts'

export type RowVersion = { key: PrimaryKey; digest: RowDigest }

/** One list of keys and digests in turn. */
export const encodeVersions = (versions: readonly RowVersion[]): Uint8Array =>
  packr.pack(versions.flatMap(({ key, digest }) => [key, Buffer.from(digest, 'latin1')]))

/** Throws RowPageError. */
export function decodeVersions(data: Uint8Array): RowVersion[] {
  const list = unpack(data, 'the list of row versions')
  if (!Array.isArray(list) || list.length % 2 !== 0) throw new RowPageError('has an invalid list of row versions')
  return Array.from({ length: list.length / 2 }, (_, index) => {
    const digest: unknown = list[2 * index + 1]
    if (!(digest instanceof Uint8Array) || digest.byteLength !== DIGEST_BYTES)
      throw new RowPageError('has an invalid list of row versions')
    return { key: checkKey(list[2 * index]), digest: Buffer.from(digest).toString('latin1') }
  })
}
