// The host's YAML file: our section read, checked and written, everything else kept; and watched for edits.

/** A fault of the configuration file. `line` and `column` count from 1; `path` as in `clustering.nodes[0].name`. */
export type Problem = { line?: number; column?: number; path?: string; message: string }
