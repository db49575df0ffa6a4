import { ArgumentError } from '../core/errors.js';
import { differentiable } from '../core/grad.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { add, div, gt, mul, sqrt, square, sum, where } from '../ops/index.js';
import { mapGrads, type Transform, transform } from './transform.js';

/** Euclidean norm of all f32 leaves taken as one vector; a scalar. Throws ArgumentError if there is none. */
export function globalNorm(grads: unknown): Tensor {
  const squares = tree
    .leaves(grads)
    .filter(differentiable)
    .map(g => sum(square(g)));
  if (squares.length === 0) throw new ArgumentError('globalNorm: the tree has no f32 leaves');
  return sqrt(squares.reduce((a, b) => add(a, b)));
}

/**
 * Scales all gradients down together so that their global norm is at most `max` (Pascanu et al. 2013). A norm that is
 * not a number changes nothing, so that it is seen where losses are checked.
 */
export function clipByGlobalNorm(max: number): Transform<Record<string, never>> {
  if (!(max > 0)) throw new ArgumentError(`clipByGlobalNorm: max must be above 0, got ${max}`);
  return transform(
    () => ({}),
    (grads, state) => {
      const norm = globalNorm(grads);
      const factor = where(gt(norm, max), div(max, norm), 1);
      return [mapGrads(g => mul(g, factor), grads), state];
    },
  );
}
