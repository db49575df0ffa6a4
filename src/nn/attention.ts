/** Attention between the rows of a set, and the transformer made of it. */
import { ArgumentError } from '../core/errors.js';
import type { Tensor } from '../core/tensor.js';
import { matmul, mul, relu, reshape, softmax, transpose, type Weight } from '../ops/index.js';
import { dense } from './dense.js';
import { defineLayer, type Layer, LayerError, within } from './layer.js';
import { layerNorm } from './norm.js';
import { residual, serial } from './serial.js';

export interface AttentionOptions {
  /** Heads, each on its share of the features; 1 unless given. */
  readonly heads?: number;
  /** Gain of the last projection (see `dense`); 1 unless given. */
  readonly gain?: number;
}

type Projection = { readonly w: Weight };

/**
 * Self-attention (Vaswani et al., NeurIPS 2017): every row of `[..., n, d]` becomes a mean of all n rows of its set,
 * weighed by softmax(q · k / √(d / heads)). Four projections `{ query, key, value, out }`, each `{ w: [d,d] }` without
 * bias, may have a task axis or be generated (x `[T, ..., n, d]`). The order of rows is not seen but kept. `inShape` needs
 * its last axis only. Throws ArgumentError for heads that are no whole number >= 1, LayerError where they do not divide d.
 */
export function attention({
  heads = 1,
  gain = 1,
}: AttentionOptions = {}): Layer<Record<'query' | 'key' | 'value' | 'out', Projection>> {
  if (!(Number.isSafeInteger(heads) && heads >= 1))
    throw new ArgumentError(`attention: heads must be a whole number >= 1, got ${heads}`);
  const widthOf = (shape: readonly number[]): number => {
    const d = shape.at(-1);
    if (d === undefined || d % heads !== 0)
      throw new LayerError('attention', `expected features in ${heads} equal shares, got [${shape}]`);
    return d;
  };
  const projection = (d: number, g = 1) => dense(d, { bias: false, gain: g });
  const NAMES = ['query', 'key', 'value'] as const;
  return defineLayer({
    params: inShape => {
      const d = widthOf(inShape);
      const [query, key, value] = NAMES.map(() => projection(d).params([d]));
      return { query, key, value, out: projection(d, gain).params([d]) };
    },
    outShape: inShape => {
      widthOf(inShape);
      return inShape;
    },
    apply: (params, x, options) => {
      const d = widthOf(x.shape);
      if (x.rank < 2) throw new LayerError('attention', `expected rows [..., n, d], got [${x.shape}]`);
      const project = (name: keyof typeof params, rows: Tensor) =>
        within(name, () => projection(d).apply(params[name], rows, options));
      // [..., n, d] -> [..., heads, n, d / heads]
      const [q, k, v] = NAMES.map(name =>
        transpose(reshape(project(name, x), [...x.shape.slice(0, -1), heads, d / heads]), -3, -2),
      );
      const weights = softmax(mul(matmul(q, transpose(k)), 1 / Math.sqrt(d / heads)));
      return project('out', reshape(transpose(matmul(weights, v), -3, -2), x.shape));
    },
  });
}

export interface TransformerOptions {
  readonly layers: number;
  readonly heads?: number;
  /** Width of the dense layer between attentions, as a multiple of d; 2 unless given. */
  readonly widen?: number;
}

/**
 * A transformer encoder on sets `[..., n, d]`, norms first (Xiong et al., ICML 2020): `layers` times attention and a
 * dense network, each added to its input, and a norm at the end, so that what leaves has mean 0 and variance 1 per row.
 * Nothing tells positions apart but what the rows hold. Branches start smaller the more of them there are.
 */
export const transformer = (d: number, { layers, heads = 1, widen = 2 }: TransformerOptions): Layer => {
  const gain = 1 / (2 * layers);
  return serial(
    ...Array.from({ length: layers }, () => [
      residual(serial(layerNorm(), attention({ heads, gain }))),
      residual(serial(layerNorm(), dense(widen * d), relu, dense(d, { gain }))),
    ]).flat(),
    layerNorm(),
  );
};
