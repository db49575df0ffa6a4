/** WebGPU kernels with indices, rows and windows against straightforward loops, over fuzzed shapes and strides. */
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import type { Expr, Scalar } from '../src/core/backend.js';
import { threefry2x32 } from '../src/ops/random.js';
import {
  at,
  check,
  command,
  dense,
  each,
  filled,
  fuzz,
  type Given,
  gpu,
  onBothTiers,
  onDevice,
  product,
  rowMajor,
  shape,
  sum,
  target,
  uniform,
  upload,
  upTo,
  viewOf,
} from './webgpu-support.js';

const add: Scalar = { name: 'add', arity: 2, f: (a, b) => a + b, wgsl: 'a + b' };
const relu: Scalar = { name: 'relu', arity: 1, f: a => Math.max(0, a), wgsl: 'math_max(a, 0.0)' };

/** A fuzzed geometry of windows: [kernel size, stride, padding before, input size] for each of two axes. */
const windowAxis = fc.tuple(upTo(3), upTo(3), fc.nat(2), upTo(6));
const windows = fc.tuple(windowAxis, windowAxis).map(axes => {
  const out = axes.map(([k, s, p, n]) => Math.max(1, Math.floor((n + 2 * p - k) / s) + 1));
  const [h, w] = axes;
  return {
    window: [h[0], w[0]],
    stride: [h[1], w[1]],
    pad: [h[2], w[2]],
    input: [h[3], w[3]],
    output: out,
  };
});

/** Calls `visit` for every tap of every window that lies inside the input. */
function taps(
  g: { window: number[]; stride: number[]; pad: number[]; input: number[]; output: number[] },
  visit: (oh: number, ow: number, kh: number, kw: number, h: number, w: number) => void,
): void {
  each([...g.output, ...g.window], ([oh, ow, kh, kw]) => {
    const h = oh * g.stride[0] + kh - g.pad[0];
    const w = ow * g.stride[1] + kw - g.pad[1];
    if (h >= 0 && h < g.input[0] && w >= 0 && w < g.input[1]) visit(oh, ow, kh, kw, h, w);
  });
}

/** A dense array of zeros to which numbers are added at an index. */
function accumulator(sizes: readonly number[]) {
  const y = filled(sizes, () => 0);
  const strides = rowMajor(sizes);
  const add = (value: number, ...index: number[]) => {
    y.data[index.reduce((flat, i, axis) => flat + i * strides[axis], 0)] += value;
  };
  return { y, add };
}

onBothTiers(() => {
  describe('gather', () => {
    const indexed = fc.tuple(shape(2, 4), upTo(5), shape(2, 4), shape(2, 3));

    fuzz('take and scatterAdd follow the indices', indexed, async ([outer, size, indices, inner], random) => {
      const axis = outer.length;
      const index = filled(indices, () => Math.floor(random() * (size + 2)) - 1);
      const whole = [...outer, size, ...inner];
      const taken = [...outer, ...indices, ...inner];
      const x = dense(whole, random);
      const y = filled(taken, i => {
        const j = at(index, ...i.slice(axis, axis + indices.length));
        const place = [...i.slice(0, axis), j, ...i.slice(axis + indices.length)];
        return j >= 0 && j < size ? at(x, ...place) : Number.NaN;
      });
      const ids: Given = { ...index, dtype: 'i32' };
      await check('take', random, { ins: [x, ids], outs: [y], attrs: { axis } });
      const src = dense(taken, random);
      const back = new Map<string, number>();
      each(taken, (i, flat) => {
        const place = [
          ...i.slice(0, axis),
          at(index, ...i.slice(axis, axis + indices.length)),
          ...i.slice(axis + indices.length),
        ];
        back.set(String(place), (back.get(String(place)) ?? 0) + src.data[flat]);
      });
      const dx = filled(whole, i => back.get(String(i)) ?? 0);
      await check('scatterAdd', random, {
        ins: [src, ids],
        outs: [{ ...dx, tolerance: 1e-6 }],
        attrs: { axis },
      });
    });

    fuzz('oneHot marks the index', fc.tuple(shape(2), upTo(5)), async ([sizes, depth], random) => {
      const index = filled(sizes, () => Math.floor(random() * (depth + 2)) - 1);
      const y = filled([...sizes, depth], i => Number(at(index, ...i.slice(0, -1)) === i.at(-1)));
      await check('oneHot', random, { ins: [{ ...index, dtype: 'i32' }], outs: [y] });
    });
  });

  describe('softmax', () => {
    for (const kernel of ['softmax', 'logSoftmax'])
      fuzz(
        `${kernel} normalises rows`,
        fc.tuple(shape(2), fc.oneof(upTo(6), upTo(300))),
        async ([kept, n], random) => {
          const x = filled([...kept, n], () => Math.fround(random() * 40 - 20));
          const y = filled(x.shape, i => {
            const row = Array.from({ length: n }, (_, j) => at(x, ...i.slice(0, -1), j));
            const log = at(x, ...i) - Math.log(sum(n, j => Math.exp(row[j])));
            return kernel === 'softmax' ? Math.exp(log) : log;
          });
          await check(kernel, random, { ins: [x], outs: [{ ...y, tolerance: 1e-5 }] });
        },
      );

    for (const kernel of ['crossEntropy', 'crossEntropyGradient'])
      fuzz(
        `${kernel} takes labels in range and not`,
        fc.tuple(shape(2), fc.oneof(upTo(6), upTo(300)), fc.constantFrom(0, 0.1)),
        async ([kept, n, smoothing], random) => {
          const x = filled([...kept, n], () => Math.fround(random() * 40 - 20));
          const labels = filled(kept, () => Math.floor(random() * (n + 2)) - 1);
          const g = filled(kept, () => Math.fround(random() * 2 - 1));
          const inside = (i: number[]) => at(labels, ...i) >= 0 && at(labels, ...i) < n;
          const mass = (i: number[]) => (inside(i) ? 1 : smoothing);
          const target = (i: number[], j: number) =>
            smoothing / n + (at(labels, ...i) === j ? 1 - smoothing : 0);
          const logSum = (i: number[]) => Math.log(sum(n, j => Math.exp(at(x, ...i, j))));
          const ofGradient = kernel === 'crossEntropyGradient';
          const y = ofGradient
            ? filled(x.shape, ij => {
                const [i, j] = [ij.slice(0, -1), ij.at(-1)!];
                return at(g, ...i) * (mass(i) * Math.exp(at(x, ...ij) - logSum(i)) - target(i, j));
              })
            : filled(kept, i => mass(i) * logSum(i) - sum(n, j => target(i, j) * at(x, ...i, j)));
          const ins = [x, { ...labels, dtype: 'i32' as const }, ...(ofGradient ? [g] : [])];
          await check(kernel, random, { ins, outs: [{ ...y, tolerance: 1e-5 }], attrs: { smoothing } });
        },
      );

    onDevice('softmax of a long row of large numbers shares threads', async () => {
      const x = filled([2, 3000], ([i, j]) => 1000 * i + Math.fround(Math.sin(j)));
      const total = sum(3000, j => Math.exp(Math.sin(j)));
      const y = filled([2, 3000], ([, j]) => Math.exp(Math.sin(j)) / total);
      await check('softmax', uniform(5), { ins: [x], outs: [{ ...y, tolerance: 1e-6 }] });
    });
  });

  describe('normalise', () => {
    /** Rows of this mean: what is lost to it is lost in f32, and only that. */
    const normalised = async (kept: number[], rest: number[], mean: number, random: () => number) => {
      const x = filled([...kept, ...rest], () => Math.fround(mean + random() * 2 - 1));
      const [rows, n] = [product(kept), product(rest)];
      const eps = 1e-5;
      const y = filled(x.shape, () => 0);
      const inverse = filled(kept, () => 0);
      for (let row = 0; row < rows; row++) {
        const values = x.data.slice(row * n, (row + 1) * n);
        const center = sum(n, j => values[j]) / n;
        inverse.data[row] = 1 / Math.sqrt(sum(n, j => (values[j] - center) ** 2) / n + eps);
        for (let j = 0; j < n; j++) y.data[row * n + j] = (values[j] - center) * inverse.data[row];
      }
      // Sums of n roundings of 6e-8, in trees and in parts.
      const tolerance = 1e-5;
      await check('normalise', random, {
        ins: [x],
        outs: [
          { ...y, tolerance },
          { ...inverse, tolerance },
        ],
        attrs: { eps },
      });
    };
    fuzz(
      'centres and scales rows',
      fc.tuple(shape(2, 4), fc.oneof(upTo(6), upTo(300)), upTo(3), fc.constantFrom(0, 100)),
      ([kept, n, m, mean], random) => normalised(kept, [n, m], mean, random),
    );
    for (const [rows, n] of [
      [1, 40_000],
      [3, 9001],
      [1, 2047],
    ])
      onDevice(`cuts ${rows} rows of ${n} into parts`, () => normalised([rows], [n], 1000, uniform(n)));
  });

  describe('convolution', () => {
    fuzz(
      'conv2d and its adjoints, with weights per task',
      fc.tuple(windows, upTo(2), upTo(2), upTo(4), upTo(5)),
      async ([g, tasks, images, c, o], random) => {
        const x = dense([tasks, images, ...g.input, c], random);
        const w = dense([tasks, ...g.window, c, o], random);
        const dy = dense([tasks, images, ...g.output, o], random);
        const y = accumulator(dy.shape);
        const dx = accumulator(x.shape);
        const dw = accumulator(w.shape);
        each([tasks, images, c, o], ([t, n, i, j]) =>
          taps(g, (oh, ow, kh, kw, h, v) => {
            const pixel = at(x, t, n, h, v, i);
            const weight = at(w, t, kh, kw, i, j);
            const gradient = at(dy, t, n, oh, ow, j);
            y.add(pixel * weight, t, n, oh, ow, j);
            dx.add(gradient * weight, t, n, h, v, i);
            dw.add(gradient * pixel, t, kh, kw, i, j);
          }),
        );
        const attrs = { stride: g.stride, pad: g.pad };
        const tolerance = 1e-5;
        await check('conv2d', random, { ins: [x, w], outs: [{ ...y.y, tolerance }], attrs });
        await check('conv2dInput', random, { ins: [dy, w], outs: [{ ...dx.y, tolerance }], attrs });
        await check('conv2dFilter', random, { ins: [x, dy], outs: [{ ...dw.y, tolerance }], attrs });
      },
    );

    onDevice('conv2d shares weights by a stride of 0 and runs an epilogue', async () => {
      const x = upload(gpu, { shape: [2, 1, 1, 2, 1], data: [1, 2, 3, 4] });
      const w = upload(gpu, { shape: [1, 1, 1, 2], data: [1, -1] });
      const bias = upload(gpu, { shape: [2], data: [0.5, 2] });
      const epilogue: Expr = {
        inputs: 2,
        immediates: [],
        code: [
          { scalar: add, args: [0, 1] },
          { scalar: relu, args: [2] },
        ],
        outs: [3],
      };
      const y = target(gpu, [2, 1, 1, 2, 2]);
      const shared = viewOf(w.storage, [2, 1, 1, 1, 2], [0, 2, 2, 2, 1]);
      const row = viewOf(bias.storage, [2, 1, 1, 2, 2], [0, 0, 0, 0, 1]);
      gpu.run([command('conv2d', [y], [x, shared, row], { stride: [1, 1], pad: [0, 0], epilogue })]);
      expect([...(await gpu.read(y))]).toEqual([1.5, 1, 2.5, 0, 3.5, 0, 4.5, 0]);
    });

    onDevice('conv2dFilter sums over many pixels in parts', async () => {
      const random = uniform(9);
      const x = dense([1, 3, 20, 20, 2], random);
      const dy = dense([1, 3, 20, 20, 3], random);
      const g = { window: [3, 3], stride: [1, 1], pad: [1, 1], input: [20, 20], output: [20, 20] };
      const dw = accumulator([1, 3, 3, 2, 3]);
      each([3, 2, 3], ([n, i, j]) =>
        taps(g, (oh, ow, kh, kw, h, v) =>
          dw.add(at(x, 0, n, h, v, i) * at(dy, 0, n, oh, ow, j), 0, kh, kw, i, j),
        ),
      );
      const outs = [{ ...dw.y, tolerance: 1e-5 }];
      await check('conv2dFilter', random, { ins: [x, dy], outs, attrs: { stride: g.stride, pad: g.pad } });
    });
  });

  describe('pooling', () => {
    fuzz(
      'maxPool, its adjoint and its gather',
      fc.tuple(windows, upTo(2), upTo(3)),
      async ([g, n, c], random) => {
        const x = filled([n, ...g.input, c], () => Math.floor(random() * 5));
        const sizes = [n, ...g.output, c];
        const best = filled(sizes, () => -1);
        const y = filled(sizes, () => Number.NEGATIVE_INFINITY);
        each([n, c], ([image, channel]) =>
          taps(g, (oh, ow, _kh, _kw, h, w) => {
            const place = ((image * g.output[0] + oh) * g.output[1] + ow) * c + channel;
            const value = at(x, image, h, w, channel);
            if (value <= y.data[place]) return;
            y.data[place] = value;
            best.data[place] = h * g.input[1] + w;
          }),
        );
        const index: Given = { ...best, dtype: 'i32' };
        const attrs = { window: g.window, stride: g.stride, pad: g.pad };
        await check('maxPool', random, { ins: [x], outs: [y, index], attrs });
        const dy = dense(sizes, random);
        const dx = accumulator(x.shape);
        const again = filled(sizes, () => Number.NaN);
        each(sizes, ([image, , , channel], flat) => {
          const pixel = best.data[flat];
          if (pixel < 0) return;
          const [h, w] = [Math.floor(pixel / g.input[1]), pixel % g.input[1]];
          dx.add(dy.data[flat], image, h, w, channel);
          again.data[flat] = at(x, image, h, w, channel);
        });
        await check('maxPoolScatter', random, {
          ins: [dy, index],
          outs: [{ ...dx.y, tolerance: 1e-6 }],
          attrs,
        });
        await check('maxPoolTake', random, { ins: [x, index], outs: [again] });
      },
    );

    fuzz('sumPool and its adjoint', fc.tuple(windows, upTo(2), upTo(3)), async ([g, n, c], random) => {
      const x = dense([n, ...g.input, c], random);
      const dy = dense([n, ...g.output, c], random);
      const y = accumulator(dy.shape);
      const dx = accumulator(x.shape);
      each([n, c], ([image, channel]) =>
        taps(g, (oh, ow, _kh, _kw, h, w) => {
          y.add(at(x, image, h, w, channel), image, oh, ow, channel);
          dx.add(at(dy, image, oh, ow, channel), image, h, w, channel);
        }),
      );
      const attrs = { window: g.window, stride: g.stride, pad: g.pad };
      await check('sumPool', random, { ins: [x], outs: [{ ...y.y, tolerance: 1e-6 }], attrs });
      await check('sumPoolSpread', random, { ins: [dy], outs: [{ ...dx.y, tolerance: 1e-6 }], attrs });
    });
  });

  describe('ragged', () => {
    fuzz(
      'raggedMatmul and raggedOuter give every row its own task',
      fc.tuple(fc.array(fc.nat(5), { minLength: 1, maxLength: 5 }), upTo(6), upTo(11)),
      async ([counts, i, o], random) => {
        const starts = [0];
        for (const n of counts) starts.push(starts.at(-1)! + n);
        const offsets: Given = { shape: [starts.length], data: starts, dtype: 'i32' };
        const tasks = counts.length;
        const x = dense([starts[tasks], i], random);
        const w = dense([tasks, i, o], random);
        const g = dense([starts[tasks], o], random);
        const y = accumulator(g.shape);
        const dw = accumulator(w.shape);
        each([tasks, i, o], ([t, a, b]) => {
          for (let row = starts[t]; row < starts[t + 1]; row++) {
            y.add(at(x, row, a) * at(w, t, a, b), row, b);
            dw.add(at(x, row, a) * at(g, row, b), t, a, b);
          }
        });
        const tolerance = 1e-5;
        await check('raggedMatmul', random, {
          ins: [x, w, offsets],
          denseIns: [2],
          outs: [{ ...y.y, tolerance }],
        });
        await check('raggedOuter', random, {
          ins: [x, g, offsets],
          denseIns: [2],
          outs: [{ ...dw.y, tolerance }],
        });
      },
    );
  });

  describe('random', () => {
    const word = fc.nat(0xffffffff);
    fuzz(
      'draws the words of threefry',
      fc.tuple(word, word, fc.oneof(fc.nat(9), word), fc.nat(9)),
      async ([a, b, start, n]) => {
        const words = Array.from(
          { length: n },
          (_, j) => threefry2x32(a, b, (start + (j >> 1)) >>> 0, 0)[j & 1],
        );
        const key: Given = { shape: [2], data: [a, b], dtype: 'u32' };
        const given = { ins: [key], denseIns: [0], denseOuts: true, attrs: { start } };
        await check('random', uniform(1), { ...given, outs: [{ shape: [n], data: words, dtype: 'u32' }] });
        const floats = words.map(word => (word >>> 8) * 2 ** -24);
        await check('random', uniform(1), { ...given, outs: [{ shape: [n], data: floats }] });
      },
    );

    onDevice('gives the published answer', async () => {
      const key = upload(gpu, { shape: [2], data: [0, 0] }, 'u32');
      const y = target(gpu, [2], 'u32');
      gpu.run([command('random', [y], [key], { start: 0 })]);
      expect([...(await gpu.read(y))]).toEqual([0x6b200159, 0x99ba4efe]);
    });
  });
});
