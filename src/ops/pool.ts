/** Pooling over windows of an image, NHWC. Leading axes before H are merged. */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { type Conv2dOptions, type Window, windowOver } from './conv2d.js';
import { mul } from './elementwise.js';
import { reshape } from './views.js';

interface PoolAttrs extends Window {
  readonly window: readonly [number, number];
  readonly shape: Shape;
}
const kernelAttrs = ({ window, stride, pad }: PoolAttrs) => ({ window, stride, pad });

/** Calls `visit(flat image position, flat output position, position within the image)` for every window element. */
function elements(
  image: Shape,
  out: Shape,
  { window, stride, pad }: PoolAttrs,
  visit: (x: number, y: number, at: number) => void,
): void {
  const [N, H, W, C] = image;
  const [, OH, OW] = out;
  for (let n = 0; n < N; n++)
    for (let oh = 0; oh < OH; oh++)
      for (let ow = 0; ow < OW; ow++)
        for (
          let h = Math.max(oh * stride[0] - pad[0], 0);
          h < Math.min(oh * stride[0] - pad[0] + window[0], H);
          h++
        )
          for (
            let w = Math.max(ow * stride[1] - pad[1], 0);
            w < Math.min(ow * stride[1] - pad[1] + window[1], W);
            w++
          )
            for (let c = 0; c < C; c++)
              visit(((n * H + h) * W + w) * C + c, ((n * OH + oh) * OW + ow) * C + c, h * W + w);
}

/** The largest of each window and (i32) where in the image it lies; the first one where several are equal. */
const maxSpec: OpSpec<PoolAttrs> = {
  name: 'maxPool',
  outputs: (_ins, { shape }) => [{ shape }, { shape, dtype: 'i32' }],
  kernelAttrs,
  ref: ([y, idx]: readonly Dense[], [x]: readonly Dense[], attrs: PoolAttrs) => {
    y.data.fill(-Infinity);
    idx.data.fill(-1);
    elements(x.shape, y.shape, attrs, (i, o, at) => {
      const v = x.data[i];
      if (idx.data[o] < 0 || v > y.data[o] || (Number.isNaN(v) && !Number.isNaN(y.data[o]))) {
        y.data[o] = v;
        idx.data[o] = at;
      }
    });
  },
  vjp: (g, [x], _out, attrs, { outs: [, idx] }) => [
    () => apply(scatterSpec, [g, idx], { ...attrs, shape: x.shape })[0],
  ],
};
const scatterSpec: OpSpec<PoolAttrs> = {
  name: 'maxPoolScatter',
  dtypes: ['f32', 'i32'],
  outputs: (_ins, { shape }) => ({ shape }),
  kernelAttrs,
  ref: ([dx]: readonly Dense[], [g, idx]: readonly Dense[]) => {
    dx.data.fill(0);
    forEachHit(dx.shape, idx, (i, o) => (dx.data[i] += g.data[o]));
  },
  vjp: (g, [, idx]) => [() => apply(takeSpec, [g, idx], undefined)[0], null],
};
const takeSpec: OpSpec<undefined> = {
  name: 'maxPoolTake',
  dtypes: ['f32', 'i32'],
  outputs: ([, idx]) => ({ shape: idx.shape }),
  ref: ([y]: readonly Dense[], [x, idx]: readonly Dense[]) =>
    forEachHit(x.shape, idx, (i, o) => (y.data[o] = x.data[i])),
};
function forEachHit(image: Shape, idx: Dense, visit: (image: number, out: number) => void): void {
  const [, H, W, C] = image;
  const perImage = sizeOf(idx.shape.slice(1));
  for (let o = 0; o < idx.data.length; o++)
    visit((Math.floor(o / perImage) * H * W + idx.data[o]) * C + (o % C), o);
}

const sumSpec: OpSpec<PoolAttrs> = {
  name: 'sumPool',
  outputs: (_ins, { shape }) => ({ shape }),
  kernelAttrs,
  ref: ([y]: readonly Dense[], [x]: readonly Dense[], attrs: PoolAttrs) => {
    y.data.fill(0);
    elements(x.shape, y.shape, attrs, (i, o) => (y.data[o] += x.data[i]));
  },
  vjp: (g, [x], _out, attrs) => [() => apply(spreadSpec, [g], { ...attrs, shape: x.shape })[0]],
};
const spreadSpec: OpSpec<PoolAttrs> = {
  name: 'sumPoolSpread',
  outputs: (_ins, { shape }) => ({ shape }),
  kernelAttrs,
  ref: ([dx]: readonly Dense[], [g]: readonly Dense[], attrs: PoolAttrs) => {
    dx.data.fill(0);
    elements(dx.shape, g.shape, attrs, (i, o) => (dx.data[i] += g.data[o]));
  },
  vjp: (g, [y], _out, attrs) => [() => apply(sumSpec, [g], { ...attrs, shape: y.shape })[0]],
};
for (const spec of [maxSpec, scatterSpec, sumSpec, spreadSpec]) defineOp(spec);
defineOp(takeSpec);

function pool(
  spec: OpSpec<PoolAttrs>,
  x: Tensor,
  window: number | readonly [number, number],
  options: Conv2dOptions,
): Tensor {
  if (x.rank < 3)
    throw new ShapeError(`${spec.name}: ${show(x.shape)} is no image, [..., H, W, C] is needed`);
  const size = typeof window === 'number' ? ([window, window] as const) : window;
  const [H, W, C] = x.shape.slice(-3);
  const lead = x.shape.slice(0, -3);
  const { out, stride, pad } = windowOver(spec.name, [H, W], size, { stride: size, ...options });
  const images = reshape(x, [sizeOf(lead), H, W, C]);
  const [y] = apply(spec, [images], { window: size, stride, pad, shape: [sizeOf(lead), ...out, C] });
  return reshape(y, [...lead, ...out, C]);
}

/** The largest value of each window; the stride is the window unless given. Padding never wins. Throws ShapeError. */
export const maxPool = (
  x: Tensor,
  window: number | readonly [number, number],
  options: Conv2dOptions = {},
): Tensor => pool(maxSpec, x, window, options);

/** The mean of each window (padding counts as 0); the stride is the window unless given. Throws ShapeError. */
export function avgPool(
  x: Tensor,
  window: number | readonly [number, number],
  options: Conv2dOptions = {},
): Tensor {
  const [h, w] = typeof window === 'number' ? [window, window] : window;
  return mul(pool(sumSpec, x, window, options), 1 / (h * w));
}
