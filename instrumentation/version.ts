/** Of the package, as its manifest says; a test keeps the two equal. */
export const version = '0.1.0'

/** The oldest Node that `npm run test:compat` runs. */
export const nodeMin = { major: 22, minor: 15 } as const
