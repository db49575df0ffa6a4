/** Indexing: `take` and `scatterAdd`, each the other's derivative, and one-hot codes. Indices are i32. */

import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, sameShape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { axisIndex } from './axes.js';
import { cast } from './cast.js';
import { ge, lt, mul, where } from './elementwise.js';
import { reshape } from './views.js';

interface TakeAttrs {
  readonly axis: number;
}
interface ScatterAttrs extends TakeAttrs {
  readonly shape: Shape;
}

/** For each outer, index and inner position: `visit(position among the taken, position in the source or -1)`. */
function positions(shape: Shape, axis: number, idx: Dense, visit: (taken: number, at: number) => void): void {
  const inner = sizeOf(shape.slice(axis + 1));
  const n = shape[axis];
  const count = idx.data.length;
  for (let o = 0; o < sizeOf(shape.slice(0, axis)); o++)
    for (let k = 0; k < count; k++) {
      const at = idx.data[k];
      for (let i = 0; i < inner; i++)
        visit((o * count + k) * inner + i, at >= 0 && at < n ? (o * n + at) * inner + i : -1);
    }
}

const takeSpec: OpSpec<TakeAttrs> = {
  name: 'take',
  dtypes: ['f32', 'i32'],
  outputs: ([x, idx], { axis }) => ({
    shape: [...x.shape.slice(0, axis), ...idx.shape, ...x.shape.slice(axis + 1)],
  }),
  ref: ([out]: readonly Dense[], [x, idx]: readonly Dense[], { axis }: TakeAttrs) =>
    positions(x.shape, axis, idx, (taken, at) => {
      out.data[taken] = at < 0 ? Number.NaN : x.data[at];
    }),
  vjp: (g, [x, idx], _out, { axis }) => [() => scatterAdd(g, idx, axis, x.shape), null],
};
defineOp(takeSpec);
/** Slices of `x` along `axis` at the positions `idx` (i32, any shape). A position out of range gives NaN. */
export const take = (x: Tensor, idx: Tensor, axis = 0): Tensor =>
  apply(takeSpec, [x, idx], { axis: axisIndex('take', axis, x.shape) })[0];

const scatterSpec: OpSpec<ScatterAttrs> = {
  name: 'scatterAdd',
  dtypes: ['f32', 'i32'],
  outputs: (_ins, { shape }) => ({ shape }),
  kernelAttrs: ({ axis }) => ({ axis }),
  ref: ([out]: readonly Dense[], [src, idx]: readonly Dense[], { axis }: TakeAttrs) => {
    out.data.fill(0);
    positions(out.shape, axis, idx, (taken, at) => {
      if (at >= 0) out.data[at] += src.data[taken];
    });
  },
  vjp: (g, [, idx], _out, { axis }) => [
    () => where(inRange(idx, g.shape[axis], g.rank - 1 - axis), take(g, idx, axis), 0),
    null,
  ],
};
defineOp(scatterSpec);
/** 1 where an index is a position among `n`, else 0, with `trailing` axes of size 1 behind. */
function inRange(idx: Tensor, n: number, trailing: number): Tensor {
  const i = cast(idx, 'f32');
  return reshape(mul(ge(i, 0), lt(i, n)), [...idx.shape, ...new Array<number>(trailing).fill(1)]);
}
/**
 * Zeros of `shape`, with the slices of `src` added at the positions `idx` along `axis` (adds in index order).
 * Positions out of range are dropped. `src` has the shape `take` would give. Throws ShapeError.
 */
export function scatterAdd(src: Tensor, idx: Tensor, axis: number, shape: Shape): Tensor {
  const at = axisIndex('scatterAdd', axis, shape);
  const want = [...shape.slice(0, at), ...idx.shape, ...shape.slice(at + 1)];
  if (!sameShape(src.shape, want))
    throw new ShapeError(
      `scatterAdd: values ${show(src.shape)} should be ${show(want)} to fill ${show(shape)}`,
    );
  return apply(scatterSpec, [src, idx], { axis: at, shape })[0];
}

const oneHotSpec: OpSpec<{ depth: number }> = {
  name: 'oneHot',
  dtypes: ['i32'],
  outputs: ([idx], { depth }) => ({ shape: [...idx.shape, depth] }),
  kernelAttrs: () => ({}),
  ref: ([out]: readonly Dense[], [idx]: readonly Dense[]) => {
    const depth = out.shape[out.shape.length - 1];
    for (let i = 0; i < out.data.length; i++)
      out.data[i] = idx.data[Math.floor(i / depth)] === i % depth ? 1 : 0;
  },
  vjp: () => [null],
};
defineOp(oneHotSpec);
/** Indices (i32) `[...]` as unit vectors `[..., depth]`; an index out of range gives zeros. */
export const oneHot = (idx: Tensor, depth: number): Tensor => apply(oneHotSpec, [idx], { depth })[0];
