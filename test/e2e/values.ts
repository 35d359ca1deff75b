// What the senders send and the tests look for.

/** 2 MiB with text of several bytes per letter, so that a cut in the middle would show. */
export const largeText = 'tällylight 🚦 '.repeat(Math.ceil((2 * 1024 * 1024) / 18))

export const oddAttributes = {
  'z.last': 'last',
  'a.first': 'ünïcode \u{1F600}',
  count: 42,
  negative: -7,
  large: '',
  exact: 9_007_199_254_740_991,
  ratio: 0.1,
  yes: true,
  list: ['x', 'y "quoted"'],
  empty: '',
}
