import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import {
  add,
  batchNorm as batchNormOp,
  full,
  layerNorm as layerNormOp,
  max,
  mean,
  mul,
  raggedOuter,
  recip,
  reshape,
  rsqrt,
  square,
  sub,
  type Weight,
} from '../ops/index.js';
import { offsetsOf, vectorFor } from '../ops/linear.js';
import { defineLayer, expectShape, type Layer, LayerError, ParamSpec } from './layer.js';

interface NormParams {
  readonly scale: Weight;
  readonly shift: Weight;
}
const none = { in: 1, out: 1, gain: 1 };
const params = (inShape: Shape) => {
  const c = inShape[inShape.length - 1];
  if (c === undefined) throw new LayerError('scale', 'expected at least one axis of features, got []');
  return { scale: new ParamSpec([c], 'scale', none), shift: new ParamSpec([c], 'bias', none) };
};
function check({ scale, shift }: NormParams, x: Tensor): void {
  const channels = [x.shape[x.rank - 1]];
  expectShape('scale', scale, channels);
  expectShape('shift', shift, channels);
}

/** Layer normalisation over the last axis (Ba et al. 2016); scale and shift `[C]`, or `[T,C]` per task. */
export const layerNorm = ({ eps = 1e-5 } = {}): Layer<NormParams> =>
  defineLayer({
    params,
    outShape: inShape => inShape,
    apply: (p, x, { rows } = {}) => {
      check(p, x);
      const offsets = rows && offsetsOf(rows, x.backend);
      return layerNormOp(x, vectorFor(x, p.scale, offsets), vectorFor(x, p.shift, offsets), eps);
    },
  });

export interface BatchNormOptions {
  readonly eps?: number;
  /**
   * Whether the first axis of x holds tasks, each with statistics of its own. Unless given: yes for an odd number of
   * axes (`[T,n,C]`, `[T,N,H,W,C]`), no for an even one (`[n,C]`, `[N,H,W,C]`).
   */
  readonly tasks?: boolean;
}

/**
 * Batch normalisation by the statistics of this very batch (no running averages: evaluation is transductive), per
 * channel, and per task where x carries a task axis or ragged rows. scale and shift `[C]`, or `[T,C]` per task.
 */
export const batchNorm = ({ eps = 1e-5, tasks }: BatchNormOptions = {}): Layer<NormParams> =>
  defineLayer({
    params,
    outShape: inShape => inShape,
    apply: (p, x, { rows } = {}) => {
      check(p, x);
      const offsets = rows && offsetsOf(rows, x.backend);
      const scale = vectorFor(x, p.scale, offsets);
      const shift = vectorFor(x, p.shift, offsets);
      if (!offsets) return batchNormOp(x, scale, shift, { tasks: tasks ?? x.rank % 2 === 1, eps });
      const centred = sub(x, taskMeans(x, offsets));
      const inverse = rsqrt(add(taskMeans(square(centred), offsets), eps));
      return add(mul(mul(centred, inverse), scale), shift);
    },
  });

/** Per channel the mean over all rows (and pixels) of a row's task, broadcast back to rows: `[N,...,C] -> [N,1,...,C]`. */
function taskMeans(x: Tensor, rows: Tensor): Tensor {
  const perRow = x.rank === 2 ? x : mean(x, [...x.shape.keys()].slice(1, -1));
  return vectorFor(x, meanByTask(perRow, rows), rows);
}

/** Mean over the rows of each task (0 for a task without rows): `[N,c]`, offsets `[T+1]` -> `[T,c]`. */
export function meanByTask(x: Tensor, rows: Tensor): Tensor {
  const each = full([x.shape[0], 1], 1, x.backend);
  const totals = raggedOuter(each, x, rows);
  const counts = raggedOuter(each, each, rows);
  return reshape(mul(totals, recip(max(counts, 1))), [totals.shape[0], totals.shape[2]]);
}
