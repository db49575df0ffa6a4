/** Other ways to look at the same memory; only `contiguous` (and `reshape`, where axes do not chain) copies. */

import type { View } from '../core/backend.js';
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import {
  broadcastStrides,
  isDense,
  reshapeStrides,
  type Shape,
  sameShape,
  show,
  sizeOf,
} from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { axisIndex, axisList } from './axes.js';
import { pad } from './concat.js';
import { sumTo } from './reduce.js';

/** Defines an op that only makes a view. */
function viewOp<A>(
  spec: Required<Pick<OpSpec<A>, 'name' | 'view' | 'vjp'>>,
): (x: Tensor, attrs: A) => Tensor {
  const full: OpSpec<A> = { ...spec, dtypes: [null] };
  defineOp(full);
  return (x, attrs) => apply(full, [x], attrs)[0];
}

const copySpec: OpSpec<undefined> = {
  name: 'copy',
  dtypes: [null],
  outputs: ([x]) => ({ shape: x.shape, dtype: x.dtype }),
  ref: ([out]: readonly Dense[], [x]: readonly Dense[]) => {
    for (let i = 0; i < out.data.length; i++) out.data[i] = x.data[i];
  },
  vjp: g => [() => g],
};
defineOp(copySpec);
/** The same values in row-major order without gaps, in memory of their own. */
export const copy = (x: Tensor): Tensor => apply(copySpec, [x], undefined)[0];
/** The tensor itself if it is dense, else a copy. */
export const contiguous = (x: Tensor): Tensor => (isDense(x.view.shape, x.view.strides) ? x : copy(x));

const reshapeView = viewOp<{ shape: Shape; strides: Shape }>({
  name: 'reshape',
  view: (x, { shape, strides }) => ({ ...x, shape, strides }),
  vjp: (g, [x]) => [() => reshape(g, x.shape)],
});
/** The same elements in another shape; one size may be -1. Copies only where axes do not chain. Throws ShapeError. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const to = resolve(x.shape, shape);
  if (sameShape(to, x.shape)) return x;
  const strides = reshapeStrides(x.shape, x.view.strides, to);
  if (strides) return reshapeView(x, { shape: to, strides });
  const dense = copy(x);
  return reshapeView(dense, { shape: to, strides: reshapeStrides(dense.shape, dense.view.strides, to)! });
}

function resolve(from: Shape, to: Shape): Shape {
  const known = to.reduce((n, d) => (d === -1 ? n : n * d), 1);
  const out = to.map(d => (d === -1 ? sizeOf(from) / known : d));
  if (
    sizeOf(out) !== sizeOf(from) ||
    !out.every(d => Number.isInteger(d) && d >= 0) ||
    to.filter(d => d === -1).length > 1
  )
    throw new ShapeError(`reshape: ${show(from)} does not fit ${show(to)}`);
  return out;
}

const permuteView = viewOp<{ order: readonly number[] }>({
  name: 'permute',
  view: (x, { order }) => ({
    ...x,
    shape: order.map(i => x.shape[i]),
    strides: order.map(i => x.strides[i]),
  }),
  vjp: (g, _ins, _out, { order }) => [
    () =>
      permute(
        g,
        order.map((_, i) => order.indexOf(i)),
      ),
  ],
});
/** Axes in another order: axis k of the result is axis `order[k]` of `x`. */
export function permute(x: Tensor, order: readonly number[]): Tensor {
  const axes = order.map(a => axisIndex('permute', a, x.shape));
  if (axes.length !== x.rank || new Set(axes).size !== x.rank)
    throw new ShapeError(`permute: ${show(order)} is no order of the axes of ${show(x.shape)}`);
  return permuteView(x, { order: axes });
}
/** The last two axes swapped, or the two named. */
export function transpose(x: Tensor, a = -2, b = -1): Tensor {
  const i = axisIndex('transpose', a, x.shape);
  const j = axisIndex('transpose', b, x.shape);
  const order = [...x.shape.keys()];
  order[i] = j;
  order[j] = i;
  return permuteView(x, { order });
}

const broadcastViewOp = viewOp<{ shape: Shape; strides: Shape }>({
  name: 'broadcastTo',
  view: (x, { shape, strides }) => ({ ...x, shape, strides }),
  vjp: (g, [x]) => [() => sumTo(g, x.shape)],
});
/** The same values repeated along axes of size 1 and new leading axes. Throws ShapeError. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const strides = broadcastStrides(x.shape, x.view.strides, shape);
  if (!strides) throw new ShapeError(`broadcastTo: ${show(x.shape)} does not broadcast to ${show(shape)}`);
  return broadcastViewOp(x, { shape, strides });
}

interface SliceAttrs {
  readonly axis: number;
  readonly start: number;
  readonly size: number;
}
const sliceView = viewOp<SliceAttrs>({
  name: 'slice',
  view: (x: View, { axis, start, size }) => ({
    ...x,
    shape: x.shape.map((n, i) => (i === axis ? size : n)),
    offset: x.offset + start * x.strides[axis],
  }),
  vjp: (g, [x], _out, { axis, start, size }) => [() => pad(g, axis, start, x.shape[axis] - start - size)],
});
/** Elements `start .. end-1` along `axis`; negative bounds count from the end. Throws ShapeError out of range. */
export function slice(x: Tensor, axis: number, start: number, end?: number): Tensor {
  const at = axisIndex('slice', axis, x.shape);
  const n = x.shape[at];
  const from = start < 0 ? start + n : start;
  const to = end === undefined ? n : end < 0 ? end + n : end;
  if (!Number.isInteger(from) || !Number.isInteger(to) || from < 0 || to > n || from > to)
    throw new ShapeError(`slice: ${start}..${end ?? ''} is not within axis ${axis} of ${show(x.shape)}`);
  return from === 0 && to === n ? x : sliceView(x, { axis: at, start: from, size: to - from });
}

/** A new axis of size 1 before `axis` (-1: after the last). */
export function expand(x: Tensor, axis: number): Tensor {
  const at = axisIndex('expand', axis, [...x.shape, 1]);
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)]);
}

/** Without the axes of size 1, or without the ones named. Throws ShapeError if one is longer. */
export function squeeze(x: Tensor, axes?: number | readonly number[]): Tensor {
  const list =
    axes === undefined
      ? [...x.shape.keys()].filter(i => x.shape[i] === 1)
      : axisList('squeeze', axes, x.shape);
  for (const a of list)
    if (x.shape[a] !== 1) throw new ShapeError(`squeeze: axis ${a} of ${show(x.shape)} is longer than 1`);
  return reshape(
    x,
    x.shape.filter((_, i) => !list.includes(i)),
  );
}
