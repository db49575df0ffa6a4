/**
 * Two-dimensional convolution, NHWC, with one filter set for all or one per task. It is bilinear, and its two adjoints
 * are the other members of this file, so the three are closed under derivatives of any order.
 */
import { ShapeError } from '../core/errors.js';
import { apply, defineOp, type OpSpec } from '../core/op.js';
import { type Shape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { expand, reshape, squeeze } from './views.js';

/** Steps and leading padding `[height, width]`; trailing padding follows from the sizes. */
export interface Window {
  readonly stride: readonly [number, number];
  readonly pad: readonly [number, number];
}
/** Internal operands are `[T,N,H,W,C]`, `[T,KH,KW,C,O]` and `[T,N,OH,OW,O]`; T is 1 for filters all tasks share. */
interface ConvAttrs extends Window {
  /** The shape of the output where the operands do not tell it. */
  readonly shape: Shape;
}

/** Calls `visit(x, w, y)` with flat positions for every product of the convolution. */
function products(
  xs: Shape,
  ws: Shape,
  ys: Shape,
  { stride, pad }: Window,
  visit: (x: number, w: number, y: number) => void,
): void {
  const [T, N, H, W, C] = xs;
  const [, KH, KW, , O] = ws;
  const [, , OH, OW] = ys;
  for (let tn = 0; tn < T * N; tn++)
    for (let oh = 0; oh < OH; oh++)
      for (let ow = 0; ow < OW; ow++)
        for (let kh = 0; kh < KH; kh++)
          for (let kw = 0; kw < KW; kw++) {
            const h = oh * stride[0] - pad[0] + kh;
            const w = ow * stride[1] - pad[1] + kw;
            if (h < 0 || h >= H || w < 0 || w >= W) continue;
            const x0 = ((tn * H + h) * W + w) * C;
            const w0 = ((Math.floor(tn / N) * KH + kh) * KW + kw) * C * O;
            const y0 = ((tn * OH + oh) * OW + ow) * O;
            for (let c = 0; c < C; c++) for (let o = 0; o < O; o++) visit(x0 + c, w0 + c * O + o, y0 + o);
          }
}

const bilinear = (
  name: string,
  ref: OpSpec<ConvAttrs>['ref'],
  vjp: (g: Tensor, a: Tensor, b: Tensor, attrs: ConvAttrs) => [() => Tensor, () => Tensor],
): OpSpec<ConvAttrs> => {
  const spec: OpSpec<ConvAttrs> = {
    name,
    outputs: (_ins, { shape }) => ({ shape }),
    kernelAttrs: ({ stride, pad }) => ({ stride, pad }),
    ref,
    vjp: (g, [a, b], _out, attrs) => vjp(g, a, b, attrs),
  };
  defineOp(spec);
  return spec;
};
const run = (spec: OpSpec<ConvAttrs>, a: Tensor, b: Tensor, window: ConvAttrs, like: Tensor): Tensor =>
  apply(spec, [a, b], { stride: window.stride, pad: window.pad, shape: like.shape })[0];

const forward: OpSpec<ConvAttrs> = bilinear(
  'conv2d',
  ([y], [x, w], at: Window) => {
    const total = new Float64Array(y.data.length);
    products(x.shape, w.shape, y.shape, at, (i, j, k) => (total[k] += x.data[i] * w.data[j]));
    y.data.set(total);
  },
  (g, x, w, at) => [() => run(input, g, w, at, x), () => run(filter, x, g, at, w)],
);
const input: OpSpec<ConvAttrs> = bilinear(
  'conv2dInput',
  ([x], [y, w], at: Window) => {
    const total = new Float64Array(x.data.length);
    products(x.shape, w.shape, y.shape, at, (i, j, k) => (total[i] += y.data[k] * w.data[j]));
    x.data.set(total);
  },
  (g, y, w, at) => [() => run(forward, g, w, at, y), () => run(filter, g, y, at, w)],
);
const filter: OpSpec<ConvAttrs> = bilinear(
  'conv2dFilter',
  ([w], [x, y], at: Window) => {
    const total = new Float64Array(w.data.length);
    products(x.shape, w.shape, y.shape, at, (i, j, k) => (total[j] += x.data[i] * y.data[k]));
    w.data.set(total);
  },
  (g, x, y, at) => [() => run(input, y, g, at, x), () => run(forward, x, g, at, y)],
);

export interface Conv2dOptions {
  readonly stride?: number | readonly [number, number];
  /** 'same' (output is input size over stride, rounded up), 'valid' (no padding), or pixels on every side. */
  readonly padding?: 'same' | 'valid' | number;
}

/** Output size and leading padding of one axis. */
function extent(
  size: number,
  window: number,
  stride: number,
  padding: 'same' | 'valid' | number,
): [number, number] {
  if (padding === 'same') {
    const out = Math.ceil(size / stride);
    return [out, Math.floor(Math.max((out - 1) * stride + window - size, 0) / 2)];
  }
  const p = padding === 'valid' ? 0 : padding;
  return [Math.floor((size + 2 * p - window) / stride) + 1, p];
}

/** Output height and width, stride and padding of a window moved over an image. Throws ShapeError if none fits. */
export function windowOver(
  op: string,
  image: readonly [number, number],
  window: readonly [number, number],
  { stride = 1, padding = 'valid' }: Conv2dOptions,
): Window & { readonly out: readonly [number, number] } {
  const steps = typeof stride === 'number' ? ([stride, stride] as const) : stride;
  const [h, top] = extent(image[0], window[0], steps[0], padding);
  const [w, left] = extent(image[1], window[1], steps[1], padding);
  if (!(h > 0 && w > 0) || steps.some(s => !(s >= 1)))
    throw new ShapeError(
      `${op}: a ${show(window)} window with stride ${show(steps)} and padding ${padding} has no place on ${show(image)}`,
    );
  return { out: [h, w], stride: steps, pad: [top, left] };
}

/**
 * Cross-correlation `[N,H,W,C] * [KH,KW,C,O] -> [N,OH,OW,O]`, or with a leading task axis `[T,N,H,W,C]`, where the
 * filters may be one set (`[KH,KW,C,O]`) or one per task (`[T,KH,KW,C,O]`). Throws ShapeError.
 */
export function conv2d(x: Tensor, w: Tensor, options: Conv2dOptions = {}): Tensor {
  const bad = () => new ShapeError(`conv2d: images ${show(x.shape)} and filters ${show(w.shape)} do not fit`);
  if (x.rank === 4 && w.rank === 4) return squeeze(conv2d(expand(x, 0), expand(w, 0), options), 0);
  if (x.rank === 5 && w.rank === 4) {
    const [T, N, ...image] = x.shape;
    const y = conv2d(reshape(x, [T * N, ...image]), w, options);
    return reshape(y, [T, N, ...y.shape.slice(1)]);
  }
  if (x.rank !== 5 || w.rank !== 5 || x.shape[0] !== w.shape[0] || x.shape[4] !== w.shape[3]) throw bad();
  const [T, N, H, W] = x.shape;
  const [, KH, KW, , O] = w.shape;
  const { out, stride, pad } = windowOver('conv2d', [H, W], [KH, KW], options);
  return apply(forward, [x, w], { stride, pad, shape: [T, N, ...out, O] })[0];
}
