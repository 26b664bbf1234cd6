// What a configuration file lacks for an enabled node, although each of its keys is valid.

import type { ConfigText, Problem } from './config-text.ts'

type RequiredKey = 'nodeName' | 'user'

/** A problem for each of these keys that is absent while clustering is enabled. None for a file that is invalid. */
export function missingKeyProblems(text: ConfigText, keys: readonly RequiredKey[]): Problem[] {
  if (!text.config?.manifest.enabled) return []
  const { manifest, settings } = text.config
  const isPresent = { nodeName: manifest.nodeName !== '', user: settings.user !== undefined }
  return keys
    .filter((key) => !isPresent[key])
    .map((key) => text.problem(['clustering', key], 'is missing while clustering is enabled'))
}
