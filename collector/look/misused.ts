/** A command's words are off: answered with the usage and exit code 2. */
export class Misused extends Error {}
