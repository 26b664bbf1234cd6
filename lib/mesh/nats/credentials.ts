// Rules for user names and passwords that nats-server accepts.

/** Limits of the JSON text. A client sends both values in one line of at most 4096 bytes (`max_control_line`). */
const MAX_USER_BYTES = 512
const MAX_PASSWORD_BYTES = 1024

/** nats-server reads such a password in its configuration as a bcrypt hash (all versions, `isBcrypt` in auth.go). */
const BCRYPT_HASH = /^\$2[abxy]\$\d{2}\$/

const LONE_SURROGATE = /\p{Surrogate}/u

function textFault(text: string, maxBytes: number): string | undefined {
  if (LONE_SURROGATE.test(text)) return 'must be valid Unicode, it contains half of a surrogate pair'
  const bytes = Buffer.byteLength(JSON.stringify(text)) - 2
  return bytes > maxBytes ? `must have at most ${maxBytes} bytes as JSON, it has ${bytes}` : undefined
}

/** Why this user name is invalid, as the end of a sentence; undefined if it is valid. */
export const userFault = (user: string): string | undefined => textFault(user, MAX_USER_BYTES)

/** The same for a password. The text never contains the password. */
export const passwordFault = (password: string): string | undefined =>
  BCRYPT_HASH.test(password)
    ? "must be the plain password, it has the form of a bcrypt hash ('$2a$10$...'), which nats-server would compare as one"
    : textFault(password, MAX_PASSWORD_BYTES)
