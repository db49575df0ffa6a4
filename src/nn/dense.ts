import type { Shape } from '../core/shape.js';
import { linear, type Weight } from '../ops/index.js';
import { offsetsOf } from '../ops/linear.js';
import {
  defineLayer,
  expectShape,
  type FanMode,
  type Layer,
  LayerError,
  ParamSpec,
  weaveFor,
} from './layer.js';

export interface WeightOptions {
  /** Adds a bias; true unless given. */
  readonly bias?: boolean;
  /** 2 (default) where a relu follows, 1 elsewhere. */
  readonly gain?: number;
  /** Which fan sets the starting variance: 'in' (default, He et al. 2015) or 'average' (Glorot & Bengio 2010, gain 1). */
  readonly fan?: FanMode;
}

const lastOf = (layer: string, inShape: Shape): number => {
  if (inShape.length === 0) throw new LayerError(layer, 'expected at least one axis of features, got []');
  return inShape[inShape.length - 1];
};

/** A linear layer: w `[in,out]`, b `[out]`; with a task axis w `[T,in,out]`, b `[T,out]` on x `[T,n,in]`. */
export function dense(
  out: number,
  { bias = true, gain = 2, fan = 'in' }: WeightOptions = {},
): Layer<{
  w: Weight;
  b?: Weight;
}> {
  return defineLayer({
    params: inShape => {
      const n = lastOf('dense', inShape);
      const size = { in: n, out, gain };
      const w = new ParamSpec([n, out], 'weight', size, fan);
      return bias ? { w, b: new ParamSpec([out], 'bias', size) } : { w };
    },
    outShape: inShape => {
      lastOf('dense', inShape);
      return [...inShape.slice(0, -1), out];
    },
    apply: (params, x, options = {}) => {
      expectShape('w', params.w, [x.shape[x.rank - 1], out]);
      if (bias) expectShape('b', params.b, [out]);
      const rows = options.rows && offsetsOf(options.rows, x.backend);
      const { w, b } = weaveFor(params, x, { ...options, rows });
      return linear(x, w, bias ? b : null, { rows, strategy: options.strategy });
    },
  });
}
