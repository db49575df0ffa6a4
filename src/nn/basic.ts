import { ArgumentError } from '../core/errors.js';
import { plain } from '../ops/generated.js';
import { ge, matmul, mul, oneHot, take, uniform, type Weight } from '../ops/index.js';
import { defineLayer, expectShape, type Layer, ParamSpec } from './layer.js';

/**
 * While training sets each value to 0 with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et
 * al. 2014). Needs `key` while training; throws ArgumentError without one.
 */
export function dropout(rate: number): Layer {
  if (!(rate >= 0 && rate < 1)) throw new ArgumentError(`dropout: rate must be in [0,1), got ${rate}`);
  return defineLayer({
    random: true,
    params: () => ({}),
    outShape: inShape => inShape,
    apply: (_, x, { key, train } = {}) => {
      if (!train || rate === 0) return x;
      if (!key)
        throw new ArgumentError('dropout: needs a key while training: apply(params, x, { key, train })');
      return mul(x, mul(ge(uniform(key, x.shape), rate), 1 / (1 - rate)));
    },
  });
}

/**
 * Rows of a table `[n,size]` by whole numbers (i32): x `[...]` gives `[...,size]`. With a table per task `[T,n,size]`
 * x is `[T,...]`. Only rows that are asked for get a gradient; a number out of range gives NaN (zeros per task).
 */
export const embedding = (n: number, size: number): Layer<{ table: Weight }> =>
  defineLayer({
    params: () => ({ table: new ParamSpec([n, size], 'weight', { in: 1, out: 1, gain: 1 }) }),
    outShape: inShape => [...inShape, size],
    apply: ({ table }, x) => {
      expectShape('table', table, [n, size]);
      const rows = plain(table);
      return rows.rank === 2 ? take(rows, x, 0) : matmul(oneHot(x, n), rows);
    },
  });
