/** Convolution with filters that are one set for all, one per task, or generated per task, under every plan. */
import type { Tensor } from '../core/tensor.js';
import { machineOf } from '../program/rates.js';
import { concat, pad } from './concat.js';
import { type Conv2dOptions, conv2d, windowOver } from './conv2d.js';
import { add, mul } from './elementwise.js';
import { FullGenerated, Generated, type Weight } from './generated.js';
import { applyWeight, inParts, type Preference, planOf } from './linear.js';
import { LowRankGenerated } from './lowRank.js';
import { matmul } from './matmul.js';
import { permute, reshape, slice } from './views.js';

export interface ConvolveOptions extends Conv2dOptions {
  /** How generated filters are applied; the planner decides unless given. */
  readonly strategy?: Preference;
}

/**
 * `conv2d` of images `[T,N,H,W,C]` with filters `[T,KH,KW,C,O]` that may be generated. Plans beside materialise:
 *
 * - lowRank: a convolution with r filters a task, then a product of each pixel's r numbers with b;
 * - reorder: one convolution with the E·O filters of the basis, then the sum over the code (chunks: as fused, by the
 *   reordered product);
 * - fused: windows of pixels side by side, then `linear` by that plan. Every pixel reads a weight that was made once, so
 *   there are many rows to a weight, and it pays only where W must not exist: the planner never chooses it by itself.
 *
 * All give the same values and derivatives up to rounding. Throws ShapeError, and ArgumentError for a plan the filters
 * do not have.
 */
export function convolve(x: Tensor, w: Weight, options: ConvolveOptions = {}): Tensor {
  if (!(w instanceof Generated)) return conv2d(x, w, options);
  const { weightShape } = w;
  const [KH, KW, C, O] = weightShape;
  const [T, N, H, W, channels] = x.shape;
  const fits = x.rank === 5 && weightShape.length === 4 && T === w.tasks && channels === C;
  if (w.applyItself || !fits) return conv2d(x, w.materialise(), options); // which tells what does not fit
  const window = windowOver('conv2d', [H, W], [KH, KW], options);
  const [OH, OW] = window.out;
  const { strategy } = options;
  const plan = planOf(w, N * OH * OW, {
    strategy,
    machine: machineOf(x.backend),
    pass: x.deps === 0 ? undefined : 'fwdbwd',
  });
  const { strategy: by, parts } = strategy ? plan : plan.candidates.find(way => way.strategy !== 'fused')!;
  if (by === 'materialise' && parts === 1) return conv2d(x, w.materialise(), options);
  if (parts > 1) return inParts(x, w, parts, (x, w) => convolve(x, w, { ...options, strategy: by }));
  const withBase = (y: Tensor, base: Tensor | null) => (base ? add(y, conv2d(x, base, options)) : y);
  if (w instanceof LowRankGenerated) {
    const a = reshape(w.a, [T, KH, KW, C, w.a.shape[2]]);
    const pixels = (y: Tensor) => reshape(y, [T, N * OH * OW, y.shape[4]]);
    const product = matmul(pixels(conv2d(x, a, options)), w.b);
    const y = w.scale === 1 ? product : mul(product, w.scale);
    return withBase(reshape(y, [T, N, OH, OW, O]), w.base);
  }
  if (by === 'reorder' && w instanceof FullGenerated) {
    const E = w.code.shape[1];
    const filters = reshape(permute(w.basis, [1, 2, 3, 0, 4]), [KH, KW, C, E * O]);
    const each = reshape(conv2d(x, filters, options), [T, N * OH * OW, E, O]);
    const y = matmul(reshape(w.code, [T, 1, 1, E]), each);
    return withBase(reshape(y, [T, N, OH, OW, O]), w.base);
  }
  return applyWeight(patches(x, [KH, KW], window), w.reshaped([KH * KW * C, O]), undefined, by);
}

/** What each pixel of the output reads, in the order of a filter: `[T,N,H,W,C] -> [T,N,OH,OW,KH·KW·C]`. */
function patches(
  x: Tensor,
  size: readonly [number, number],
  { out, stride, pad: before }: ReturnType<typeof windowOver>,
): Tensor {
  let padded = x;
  for (const k of [0, 1]) {
    // As much as the last step of the last window reaches, and whole steps for `every` below.
    const after = size[k] - 1 + out[k] * stride[k] - before[k] - x.shape[2 + k];
    padded = pad(padded, 2 + k, before[k], Math.max(after, 0));
  }
  const every = (y: Tensor, k: 0 | 1, from: number): Tensor => {
    const axis = 2 + k;
    const run = slice(y, axis, from, from + out[k] * stride[k]);
    const steps = [...run.shape.slice(0, axis), out[k], stride[k], ...run.shape.slice(axis + 1)];
    return reshape(slice(reshape(run, steps), axis + 1, 0, 1), [
      ...run.shape.slice(0, axis),
      out[k],
      ...run.shape.slice(axis + 1),
    ]);
  };
  const taps: Tensor[] = [];
  for (let h = 0; h < size[0]; h++)
    for (let w = 0; w < size[1]; w++) taps.push(every(every(padded, 0, h), 1, w));
  return concat(taps, -1);
}
