/** Normalisation, composed of reductions and elementwise ops (compiled steps fuse them). */
import { ShapeError } from '../core/errors.js';
import { show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { add, mul, rsqrt, square, sub, type Value } from './elementwise.js';
import { mean } from './reduce.js';

/** (x - mean) / sqrt(variance + eps) over `axes`, then scale and shift, which broadcast. */
function normalise(x: Tensor, axes: readonly number[], scale: Value, shift: Value, eps: number): Tensor {
  const centred = sub(x, mean(x, axes, { keepDims: true }));
  const inverse = rsqrt(add(mean(square(centred), axes, { keepDims: true }), eps));
  return add(mul(mul(centred, inverse), scale), shift);
}

/**
 * Layer normalisation (Ba et al. 2016) over the last axis. scale and shift broadcast to `x`: `[C]`, or `[T,1,C]` for
 * one set per task.
 */
export const layerNorm = (x: Tensor, scale: Value = 1, shift: Value = 0, eps = 1e-5): Tensor =>
  normalise(x, [-1], scale, shift, eps);

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
  return normalise(x, axes, scale, shift, eps);
}
