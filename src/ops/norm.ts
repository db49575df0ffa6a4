/** Normalisation by mean and variance over any axes, and the layers' norms made of it. */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { axisList, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { axesLast, withOnes, without } from './axes.js';
import { add, mul, square, sub, type Value } from './elementwise.js';
import { mean } from './reduce.js';
import { reshape } from './views.js';

interface NormaliseAttrs {
  /** Sorted, non-negative. */
  readonly axes: readonly number[];
  readonly eps: number;
}
interface NormaliseKernel {
  readonly eps: number;
  /** How many trailing axes are averaged over. */
  readonly reduced: number;
}

const normaliseSpec: OpSpec<NormaliseAttrs> = {
  name: 'normalise',
  outputs: ([x], { axes }) => [{ shape: x.shape }, { shape: without(x.shape, axes) }],
  lower: ([x], [y, inverse], { axes, eps }) => [
    {
      kernel: 'normalise',
      op: 'normalise',
      outs: [axesLast(y.view, axes), inverse.view],
      ins: [axesLast(x.view, axes)],
      attrs: { eps, reduced: axes.length } satisfies NormaliseKernel,
    },
  ],
  ref: ([y, inverse]: readonly Dense[], [x]: readonly Dense[], { eps, reduced }: NormaliseKernel) => {
    const n = sizeOf(x.shape.slice(x.shape.length - reduced));
    for (let i = 0; i < inverse.data.length; i++) {
      const row = x.data.subarray(i * n, (i + 1) * n);
      let total = 0;
      for (const v of row) total += v;
      let squares = 0;
      for (const v of row) squares += (v - total / n) ** 2;
      const scale = 1 / Math.sqrt(squares / n + eps);
      inverse.data[i] = scale;
      for (let j = 0; j < n; j++) y.data[i * n + j] = (row[j] - total / n) * scale;
    }
  },
  vjp: (_g, [x], _out, { axes }, { outs: [y, inverse], gs: [gy, gi] }) => [
    () => {
      const spread = (v: Tensor) => reshape(v, withOnes(x.shape, axes));
      const n = axes.reduce((m, a) => m * x.shape[a], 1);
      const along = gi && mul(y, spread(mul(mul(gi, square(inverse)), -1 / n)));
      if (!gy) return along!;
      const keepDims = { keepDims: true };
      const across = sub(sub(gy, mean(gy, axes, keepDims)), mul(y, mean(mul(gy, y), axes, keepDims)));
      const slope = mul(across, spread(inverse));
      return along ? add(slope, along) : slope;
    },
  ],
};
defineOp(normaliseSpec);

/**
 * `[(x - mean) * inverse, inverse]` with `inverse = 1 / sqrt(variance + eps)` over `axes`: the first has the shape of
 * `x`, the second that shape without `axes`. The variance is divided by n, not n - 1. Throws ShapeError for an axis
 * `x` does not have.
 */
export function normalise(x: Tensor, axes: number | readonly number[], eps = 1e-5): [Tensor, Tensor] {
  const [y, inverse] = apply(normaliseSpec, [x], { axes: axisList('normalise', axes, x.shape), eps });
  return [y, inverse];
}

/** y * scale + shift. */
function affine(y: Tensor, scale: Value, shift: Value): Tensor {
  const scaled = scale === 1 ? y : mul(y, scale);
  return shift === 0 ? scaled : add(scaled, shift);
}

/**
 * Layer normalisation (Ba et al. 2016) over the last axis. scale and shift broadcast to `x`: `[C]`, or `[T,1,C]` for
 * one set per task.
 */
export const layerNorm = (x: Tensor, scale: Value = 1, shift: Value = 0, eps = 1e-5): Tensor =>
  affine(normalise(x, -1, eps)[0], scale, shift);

/**
 * Batch normalisation (Ioffe & Szegedy 2015) by the statistics of this very batch, per channel (the last axis) and,
 * where `tasks` is true, per task (the first axis): nothing leaks from task to task and there are no running averages.
 * scale and shift broadcast to `x`. Throws ShapeError where no axis is left to average over.
 */
export function batchNorm(
  x: Tensor,
  scale: Value = 1,
  shift: Value = 0,
  { tasks = false, eps = 1e-5 }: { tasks?: boolean; eps?: number } = {},
): Tensor {
  const axes = [...x.shape.keys()].slice(tasks ? 1 : 0, -1);
  if (axes.length === 0) throw new ShapeError(`batchNorm: ${show(x.shape)} leaves no axis to average over`);
  return affine(normalise(x, axes, eps)[0], scale, shift);
}
