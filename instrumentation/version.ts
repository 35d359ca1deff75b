/** Of the package, as its manifest says; a test keeps the two equal. */
export const version = '0.1.0'
