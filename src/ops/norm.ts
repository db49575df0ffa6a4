/** Normalisation by mean and variance over any axes, and the layers' norms made of it. */
import type { Command, Expr } from '../core/backend.js';
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { broadcastStrides, type Shape, show, sizeOf } from '../core/shape.js';
import { Tensor } from '../core/tensor.js';
import { axesLast, axisIndex, axisList, withOnes, without } from './axes.js';
import { add, broadcastView, mul, scalarNamed, square, sub, type Value } from './elementwise.js';
import { mean, sum, sumTo } from './reduce.js';
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

/** y and inverse of x, as one kernel call for `op`. */
const normaliseCommand = (
  op: string,
  [x, y, inverse]: readonly Tensor[],
  { axes, eps }: NormaliseAttrs,
): Command => ({
  kernel: 'normalise',
  op,
  outs: [axesLast(y.view, axes), inverse.view],
  ins: [axesLast(x.view, axes)],
  attrs: { eps, reduced: axes.length } satisfies NormaliseKernel,
});

const countOver = ({ shape }: Tensor, axes: readonly number[]) => axes.reduce((n, a) => n * shape[a], 1);
const keepDims = { keepDims: true };

/** The cotangent of x from those of y and inverse, at least one of which arrived. */
function slopeOf(
  [y, inverse]: readonly Tensor[],
  [gy, gi]: readonly (Tensor | undefined)[],
  axes: readonly number[],
): Tensor {
  const spread = (v: Tensor) => reshape(v, withOnes(y.shape, axes));
  const along = gi && mul(y, spread(mul(mul(gi, square(inverse)), -1 / countOver(y, axes))));
  if (!gy) return along!;
  const across = sub(sub(gy, mean(gy, axes, keepDims)), mul(y, mean(mul(gy, y), axes, keepDims)));
  const slope = mul(across, spread(inverse));
  return along ? add(slope, along) : slope;
}

const normaliseSpec: OpSpec<NormaliseAttrs> = {
  name: 'normalise',
  outputs: ([x], { axes }) => [{ shape: x.shape }, { shape: without(x.shape, axes) }],
  lower: (ins, outs, attrs) => [normaliseCommand('normalise', [...ins, ...outs], attrs)],
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
  vjp: (_g, _ins, _out, { axes }, { outs, gs }) => [() => slopeOf(outs, gs, axes)],
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

/** Whether a shape that broadcasts to `to` is constant along `axes`. */
const isEven = (shape: Shape, to: Shape, axes: readonly number[]): boolean =>
  shape.every((n, i) => n === 1 || !axes.includes(to.length - shape.length + i));

/**
 * z = y * scale + shift, y and inverse; scale and shift do not make x larger. Where they are constant along the axes,
 * their cotangents are the very sums that the cotangent of x needs, and each is taken once.
 */
const affineNorm = (name: string): OpSpec<NormaliseAttrs> => ({
  name,
  outputs: ([x], { axes }) => [{ shape: x.shape }, { shape: x.shape }, { shape: without(x.shape, axes) }],
  lower: ([x, scale, shift], [z, y, inverse], attrs) => [
    normaliseCommand(name, [x, y, inverse], attrs),
    {
      kernel: 'elementwise',
      op: name,
      outs: [z.view],
      ins: [y, scale, shift].map(v => broadcastView(v.view, z.shape)),
      attrs: { expr: scaleAndShift },
    },
  ],
  vjp: (_g, [x, scale, shift], _out, { axes }, { outs: [, y, inverse], gs: [g, gy, gi] }) => {
    if (!g) return [() => slopeOf([y, inverse], [gy, gi], axes), null, null];
    if (![scale, shift].every(v => isEven(v.shape, x.shape, axes)))
      return [
        () => slopeOf([y, inverse], [gy ? add(mul(g, scale), gy) : mul(g, scale), gi], axes),
        () => sumTo(mul(g, y), scale.shape),
        () => sumTo(g, shift.shape),
      ];
    let sums: Tensor | undefined;
    let products: Tensor | undefined;
    const sumOf = () => (sums ??= sum(g, axes, keepDims));
    const productsOf = () => (products ??= sum(mul(g, y), axes, keepDims));
    return [
      () => {
        const share = 1 / countOver(x, axes);
        const across = sub(sub(g, mul(sumOf(), share)), mul(y, mul(productsOf(), share)));
        const slope = mul(across, mul(reshape(inverse, withOnes(x.shape, axes)), scale));
        return gy || gi ? add(slope, slopeOf([y, inverse], [gy, gi], axes)) : slope;
      },
      () => sumTo(productsOf(), scale.shape),
      () => sumTo(sumOf(), shift.shape),
    ];
  },
});
const layerNormSpec = affineNorm('layerNorm');
const batchNormSpec = affineNorm('batchNorm');
for (const spec of [layerNormSpec, batchNormSpec]) defineOp(spec);
const scaleAndShift: Expr = {
  inputs: 3,
  immediates: [],
  code: [
    { scalar: scalarNamed('mul')!, args: [0, 1] },
    { scalar: scalarNamed('add')!, args: [3, 2] },
  ],
  outs: [4],
};

/** Normalises over the axes, then scales and shifts, which broadcast. */
function norm(
  spec: OpSpec<NormaliseAttrs>,
  x: Tensor,
  scale: Value,
  shift: Value,
  attrs: NormaliseAttrs,
): Tensor {
  const fits = (v: Value): v is Tensor =>
    v instanceof Tensor && broadcastStrides(v.shape, v.view.strides, x.shape) !== null;
  if (fits(scale) && fits(shift)) return apply(spec, [x, scale, shift], attrs)[0];
  const [y] = apply(normaliseSpec, [x], attrs);
  const scaled = scale === 1 ? y : mul(y, scale);
  return shift === 0 ? scaled : add(scaled, shift);
}

/**
 * Layer normalisation (Ba et al. 2016) over the last axis. scale and shift broadcast to `x`: `[C]`, or `[T,1,C]` for
 * one set per task.
 */
export const layerNorm = (x: Tensor, scale: Value = 1, shift: Value = 0, eps = 1e-5): Tensor =>
  norm(layerNormSpec, x, scale, shift, { axes: [axisIndex('layerNorm', -1, x.shape)], eps });

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
  return norm(batchNormSpec, x, scale, shift, { axes, eps });
}
