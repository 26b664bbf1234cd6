/** The version of this package, for logs. A test compares it with package.json, which a bundle may not contain. */
export const packageVersion = '0.1.0'
