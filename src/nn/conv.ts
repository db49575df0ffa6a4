import type { Shape } from '../core/shape.js';
import {
  add,
  avgPool as avgPoolOp,
  type Conv2dOptions,
  convolve,
  maxPool as maxPoolOp,
  reshape,
  type Weight,
  windowOver,
} from '../ops/index.js';
import { offsetsOf, vectorFor } from '../ops/linear.js';
import type { WeightOptions } from './dense.js';
import { defineLayer, expectShape, type Layer, LayerError, ParamSpec } from './layer.js';

const pairOf = (window: number | readonly [number, number]): readonly [number, number] =>
  typeof window === 'number' ? [window, window] : window;

function image(layer: string, inShape: Shape): readonly [number, number, number] {
  if (inShape.length !== 3) throw new LayerError(layer, `expected [H,W,C], got [${inShape}]`);
  return [inShape[0], inShape[1], inShape[2]];
}

/**
 * A convolution, NHWC: w `[kh,kw,in,out]`, b `[out]` on x `[N,H,W,in]` or `[T,N,H,W,in]`; with a task axis w
 * `[T,kh,kw,in,out]`, b `[T,out]` on x `[T,N,H,W,in]`. Generated filters are applied by the plan
 * asked for, or the cheapest (`convolve`). Padding is 'same' unless given.
 */
export function conv2d(
  out: number,
  window: number | readonly [number, number],
  { bias = true, gain = 2, fan = 'in', padding = 'same', stride = 1 }: WeightOptions & Conv2dOptions = {},
): Layer<{ w: Weight; b?: Weight }> {
  const [kh, kw] = pairOf(window);
  const how = { padding, stride };
  return defineLayer({
    params: inShape => {
      const [, , c] = image('conv2d', inShape);
      const size = { in: kh * kw * c, out: kh * kw * out, gain };
      const w = new ParamSpec([kh, kw, c, out], 'weight', size, fan);
      return bias ? { w, b: new ParamSpec([out], 'bias', size) } : { w };
    },
    outShape: inShape => {
      const [h, w] = image('conv2d', inShape);
      return [...windowOver('conv2d', [h, w], [kh, kw], how).out, out];
    },
    apply: ({ w, b }, x, { rows, strategy } = {}) => {
      expectShape('w', w, [kh, kw, x.shape[x.rank - 1], out]);
      if (bias) expectShape('b', b, [out]);
      if (rows && w.shape.length === 5)
        throw new LayerError('w', 'filters per task do not take ragged rows; give every task as many images');
      const y = convolve(x, w, { ...how, strategy });
      return b ? add(y, vectorFor(y, b, rows && offsetsOf(rows, y.backend))) : y;
    },
  });
}

const pooling =
  (name: string, op: typeof maxPoolOp) =>
  (window: number | readonly [number, number], options: Conv2dOptions = {}): Layer =>
    defineLayer({
      params: () => ({}),
      outShape: inShape => {
        const [h, w, c] = image(name, inShape);
        const { out } = windowOver(name, [h, w], pairOf(window), { stride: pairOf(window), ...options });
        return [...out, c];
      },
      apply: (_, x) => op(x, window, options),
    });
/** The largest value of each window; the stride is the window unless given. */
export const maxPool = pooling('maxPool', maxPoolOp);
/** The mean of each window (padding counts as 0); the stride is the window unless given. */
export const avgPool = pooling('avgPool', avgPoolOp);

/** The last `axes` axes (3: an image) as one axis of features. */
export const flatten = (axes = 3): Layer =>
  defineLayer({
    params: () => ({}),
    outShape: inShape => {
      if (inShape.length < axes)
        throw new LayerError('flatten', `expected at least ${axes} axes, got [${inShape}]`);
      const lead = inShape.slice(0, inShape.length - axes);
      return [...lead, inShape.slice(lead.length).reduce((a, b) => a * b, 1)];
    },
    apply: (_, x) => {
      const lead = x.shape.slice(0, x.rank - axes);
      return reshape(x, [...lead, x.shape.slice(lead.length).reduce((a, b) => a * b, 1)]);
    },
  });
