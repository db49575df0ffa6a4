/** Matrix products: batched, broadcast, strided. The batched weight projection and per-task layers are made of it. */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { broadcastShapes, reshapeStrides, type Shape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { broadcastView } from './elementwise.js';
import { sumTo } from './reduce.js';
import { reshape, transpose } from './views.js';

const lead = (shape: Shape) => shape.slice(0, -2);

const spec: OpSpec<undefined> = {
  name: 'matmul',
  outputs: ([a, b]) => ({
    shape: [
      ...broadcastShapes('matmul', lead(a.shape), lead(b.shape)),
      a.shape[a.rank - 2],
      b.shape[b.rank - 1],
    ],
  }),
  operands: ([a, b], _attrs, [out]) => {
    const batch = lead(out.shape);
    return [a, b].map(x => broadcastView(x.view, [...batch, ...x.shape.slice(-2)]));
  },
  ref: ([out]: readonly Dense[], [a, b]: readonly Dense[]) => {
    const [m, k] = a.shape.slice(-2);
    const n = b.shape[b.shape.length - 1];
    for (let t = 0; t < sizeOf(lead(out.shape)); t++)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let total = 0;
          for (let l = 0; l < k; l++) total += a.data[(t * m + i) * k + l] * b.data[(t * k + l) * n + j];
          out.data[(t * m + i) * n + j] = total;
        }
  },
  vjp: (g, [a, b]) => [
    () => sumTo(matmul(g, transpose(b)), a.shape),
    () => sumTo(matmul(transpose(a), g), b.shape),
  ],
};
defineOp(spec);

/**
 * `[..., m, k] · [..., k, n] -> [..., m, n]`; leading axes broadcast. Where only `a` has leading axes they are merged
 * into its rows first, so that the gradient of a shared `b` is one product and not a sum over the batch.
 * Throws ShapeError naming both shapes.
 */
export function matmul(a: Tensor, b: Tensor): Tensor {
  if (a.rank < 2 || b.rank < 2 || a.shape[a.rank - 1] !== b.shape[b.rank - 2])
    throw new ShapeError(
      `matmul: inner sizes differ, ${show(a.shape)} x ${show(b.shape)}` +
        (a.rank < 2 || b.rank < 2 ? ' (both need at least two axes)' : ''),
    );
  if (a.rank > 2 && b.rank === 2) {
    const merged = [sizeOf(a.shape.slice(0, -1)), a.shape[a.rank - 1]];
    if (reshapeStrides(a.shape, a.view.strides, merged))
      return reshape(apply(spec, [reshape(a, merged), b], undefined)[0], [
        ...a.shape.slice(0, -1),
        b.shape[1],
      ]);
  }
  return apply(spec, [a, b], undefined)[0];
}
