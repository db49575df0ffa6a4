/** Reductions over any axes. Kernels see the reduced axes last; the view does that without a copy. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, sameShape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { axesLast, axisIndex, axisList, withOnes, without } from './axes.js';
import { div, eq, mul, square, sub } from './elementwise.js';
import { broadcastTo, reshape } from './views.js';

type Fold = 'sum' | 'max' | 'min';
interface ReduceAttrs {
  /** Sorted, non-negative. */
  readonly axes: readonly number[];
}

const folds: Record<Fold, { start: number; step: (a: number, b: number) => number }> = {
  sum: { start: 0, step: (a, b) => a + b },
  max: { start: -Infinity, step: Math.max },
  min: { start: Infinity, step: Math.min },
};

defineOp<{ fn: Fold; reduced: number }>({
  name: 'reduce',
  ref: ([out], [x], { fn, reduced }: { fn: Fold; reduced: number }) => {
    const n = sizeOf(x.shape.slice(x.shape.length - reduced));
    const { start, step } = folds[fn];
    for (let i = 0; i < out.data.length; i++) {
      let total = start;
      for (let j = 0; j < n; j++) total = step(total, x.data[i * n + j]);
      out.data[i] = total;
    }
  },
});

const reduction = (fn: Fold, vjp: OpSpec<ReduceAttrs>['vjp']): OpSpec<ReduceAttrs> => {
  const spec: OpSpec<ReduceAttrs> = {
    name: fn === 'sum' ? 'sum' : `${fn}Over`,
    kernel: 'reduce',
    outputs: ([x], { axes }) => ({ shape: without(x.shape, axes) }),
    operands: ([x], { axes }) => [axesLast(x.view, axes)],
    kernelAttrs: ({ axes }) => ({ fn, reduced: axes.length }),
    vjp,
  };
  defineOp(spec);
  return spec;
};

const spread = (g: Tensor, shape: Shape, axes: readonly number[]) =>
  broadcastTo(reshape(g, withOnes(shape, axes)), shape);

const sumSpec = reduction('sum', (g, [x], _, { axes }) => [() => spread(g, x.shape, axes)]);
/** Equal extremes share the gradient. */
const extreme: OpSpec<ReduceAttrs>['vjp'] = (g, [x], out, { axes }) => [
  () => {
    const hit = eq(x, spread(out, x.shape, axes));
    return mul(hit, spread(div(g, sum(hit, axes)), x.shape, axes));
  },
];
const maxSpec = reduction('max', extreme);
const minSpec = reduction('min', extreme);

export interface ReduceOptions {
  /** Keep the reduced axes with size 1. */
  readonly keepDims?: boolean;
}
type Axes = number | readonly number[] | undefined;

function reduce(spec: OpSpec<ReduceAttrs>, x: Tensor, axes: Axes, { keepDims }: ReduceOptions): Tensor {
  const list = axisList(spec.name, axes, x.shape);
  const [out] = list.length === 0 ? [x] : apply(spec, [x], { axes: list });
  return keepDims ? reshape(out, withOnes(x.shape, list)) : out;
}

/** Sum over `axes` (all of them if not given). */
export const sum = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor =>
  reduce(sumSpec, x, axes, options);

/** Largest value over `axes`. Throws ShapeError over no elements. */
export const maxOver = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor =>
  reduce(maxSpec, notEmpty('maxOver', x, axes), axes, options);

/** Smallest value over `axes`. Throws ShapeError over no elements. */
export const minOver = (x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor =>
  reduce(minSpec, notEmpty('minOver', x, axes), axes, options);

function notEmpty(op: string, x: Tensor, axes: Axes): Tensor {
  if (axisList(op, axes, x.shape).some(a => x.shape[a] === 0))
    throw new ShapeError(`${op}: ${show(x.shape)} has no elements to choose from`);
  return x;
}

/** Arithmetic mean over `axes`. */
export function mean(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  const list = axisList('mean', axes, x.shape);
  const n = list.reduce((m, a) => m * x.shape[a], 1);
  return mul(sum(x, list, options), 1 / n);
}

/** Mean squared distance from the mean over `axes` (divided by n, not n - 1); two passes, so it keeps its digits. */
export function variance(x: Tensor, axes?: Axes, options: ReduceOptions = {}): Tensor {
  return mean(square(sub(x, mean(x, axes, { keepDims: true }))), axes, options);
}

interface AxisAttrs {
  readonly axis: number;
}
const argmaxSpec: OpSpec<AxisAttrs> = {
  name: 'argmax',
  outputs: ([x], { axis }) => ({ shape: without(x.shape, [axis]), dtype: 'i32' }),
  operands: ([x], { axis }) => [axesLast(x.view, [axis])],
  kernelAttrs: () => ({}),
  ref: ([out]: readonly Dense[], [x]: readonly Dense[]) => {
    const n = x.shape[x.shape.length - 1];
    for (let i = 0; i < out.data.length; i++) {
      let best = 0;
      for (let j = 0; j < n; j++) {
        const v = x.data[i * n + j];
        const top = x.data[i * n + best];
        if (v > top || (Number.isNaN(v) && !Number.isNaN(top))) best = j;
      }
      out.data[i] = best;
    }
  },
};
defineOp(argmaxSpec);
/** Index (i32) of the first largest value along `axis`; NaN counts as largest. */
export const argmax = (x: Tensor, axis = -1): Tensor =>
  apply(argmaxSpec, [notEmpty('argmax', x, axis)], { axis: axisIndex('argmax', axis, x.shape) })[0];

/** Sums `x` down to a shape that broadcasts to it: the adjoint of broadcasting. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x;
  const lead = x.rank - shape.length;
  if (lead < 0) throw new ArgumentError(`sumTo: ${show(shape)} does not broadcast to ${show(x.shape)}`);
  const axes = [...x.shape.keys()].filter(i => i < lead || (shape[i - lead] === 1 && x.shape[i] !== 1));
  return reshape(sum(x, axes), shape);
}
