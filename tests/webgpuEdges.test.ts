/**
 * Every WebGPU kernel that is registered against `ref`: over sizes of 0 and 1, primes, and just under and over each tile,
 * in any strides, whole and in ranges of bindings that are too small for the operands.
 */
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { open } from '../src/backends/init.js';
import { node } from '../src/backends/webgpu/index.js';
import type { Tunable } from '../src/backends/webgpu/tiling.js';
import type { Attrs, Backend, DType, Expr, KernelFailure, Scalar } from '../src/core/backend.js';
import { DeviceLimitError } from '../src/core/errors.js';
import { type Tensor, use } from '../src/core/tensor.js';
import { add as addOp, matmul, mul as mulOp, relu, sum as sumOp, tensor } from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';
import {
  check,
  command,
  dense,
  difference,
  fuzz,
  type Given,
  gpu,
  onBothTiers,
  onDevice,
  product,
  target,
  uniform,
  upload,
  useDevice,
} from './webgpu-support.js';

const ref = await open('ref');
afterAll(() => ref.dispose());

interface Example {
  readonly ins: readonly Given[];
  readonly outs: readonly { readonly shape: readonly number[]; readonly dtype?: DType }[];
  readonly attrs?: Attrs;
  readonly tolerance?: number;
  /** Operands that the kernel's contract promises dense. */
  readonly denseIns?: readonly number[];
}

/** What the reference gives. */
async function onRef(kernel: string, { ins, outs, attrs }: Example): Promise<number[][]> {
  const views = ins.map(x => upload(ref, x, x.dtype));
  const results = outs.map(({ shape, dtype }) =>
    upload(ref, { shape, data: new Array(product(shape)).fill(0) }, dtype),
  );
  ref.run([command(kernel, results, views, attrs)]);
  return Promise.all(results.map(async y => [...(await ref.read(y))]));
}

/** A size: small, prime, or one off the tiles of the kernels (8 to 256 threads, results and steps). */
const TILES = [4, 8, 16, 32, 64, 128, 256];
const edge = (most: number, least = 0) =>
  fc.constantFrom(
    ...[0, 1, 2, 3, 5, 7, 13, 31, 61, ...TILES.flatMap(n => [n - 1, n, n + 1])].filter(
      n => n >= least && n <= most,
    ),
  );
/** Sizes of several axes that hold few enough elements together for the reference. */
const axes = (...of: fc.Arbitrary<number>[]) => fc.tuple(...of).filter(sizes => product(sizes) <= 1 << 15);
const positive = (most: number) => edge(most, 1);

const add: Scalar = { name: 'add', arity: 2, f: (a, b) => a + b, wgsl: 'a + b' };
const mul: Scalar = { name: 'mul', arity: 2, f: (a, b) => a * b, wgsl: 'a * b' };
const code = [
  { scalar: mul, args: [0, -1] },
  { scalar: add, args: [2, 1] },
];
const scaled: Expr = { inputs: 2, immediates: [0.5], code, outs: [3] };

type Values = (shape: readonly number[]) => Given;
type Whole = (shape: readonly number[], below: number, from?: number) => Given;
/** A kernel's examples from arbitrary sizes. */
interface Edges {
  readonly sizes: fc.Arbitrary<readonly number[]>;
  readonly of: (sizes: readonly number[], values: Values, whole: Whole) => Example | Promise<Example>;
}

/** An image of n x n pixels under windows of k x k, `stride` apart, behind `pad`: [image, window, stride, pad]. */
const window2d = axes(
  fc.constantFrom(1, 2, 5, 8, 9),
  fc.constantFrom(1, 2, 3),
  fc.constantFrom(1, 2),
  fc.constantFrom(0, 1),
);
const windowed = (...more: fc.Arbitrary<number>[]) =>
  fc
    .tuple(window2d, fc.tuple(...more))
    .filter(([[n, k, , p]]) => n + 2 * p >= k && p < k)
    .map(([w, rest]) => [...w, ...rest]);
const pooling = ([n, k, s, p]: readonly number[]) => ({
  o: Math.floor((n + 2 * p - k) / s) + 1,
  attrs: { window: [k, k], stride: [s, s], pad: [p, p] },
});
const pooled = windowed(edge(3), edge(33));
/** Sums of windows, or what each sum's gradient comes to where it was read. */
const sums = (forward: boolean): Edges => ({
  sizes: pooled,
  of: (sizes, values) => {
    const [n, , , , images, c] = sizes;
    const { o, attrs } = pooling(sizes);
    const shapes = [
      [images, n, n, c],
      [images, o, o, c],
    ];
    const [from, to] = forward ? shapes : shapes.reverse();
    return { ins: [values(from)], outs: [{ shape: to }], attrs, tolerance: 1e-6 };
  },
});
/** Where maxPool found the maxima. */
async function maxima(x: Given, shape: readonly number[], attrs: Attrs): Promise<Given> {
  const outs = [{ shape }, { shape, dtype: 'i32' as const }];
  return { shape, data: (await onRef('maxPool', { ins: [x], outs, attrs }))[1], dtype: 'i32' };
}

/** Tasks or images: mostly some. */
const few = fc.constantFrom(0, 1, 1, 2, 2);
const convolved = windowed(few, few, edge(17), edge(33));
const convolution = (sizes: readonly number[]) => {
  const [n, k, , , tasks, images, c, o] = sizes;
  const { o: side, attrs } = pooling(sizes);
  const x = [tasks, images, n, n, c];
  const w = [tasks, k, k, c, o];
  const y = [tasks, images, side, side, o];
  return { x, w, y, attrs: { stride: attrs.stride, pad: attrs.pad } };
};

/** Offsets of tasks of different row counts, some without any. */
function ragged(tasks: number, rows: number): Given {
  const data = Array.from({ length: tasks + 1 }, (_, t) => Math.floor((rows * t * t) / (tasks * tasks)));
  return { shape: [tasks + 1], data, dtype: 'i32' };
}
const raggedSizes = axes(positive(9), edge(33), edge(33), edge(33));

const generated = fc.tuple(
  axes(positive(17), positive(17), edge(17), edge(33), fc.constantFrom(0, 1, 2, 3)),
  fc.nat(3),
);
function generating(sizes: readonly number[], values: Values, gradients: boolean): Example {
  const [T, E, i, o, perTask, kind] = sizes;
  const rows = T * perTask;
  const base = kind % 2 === 1;
  const offsets = kind >= 2 ? [ragged(T, rows)] : [];
  const shapes: Record<string, number[]> = { code: [T, E], basis: [E, i, o], x: [rows, i], base: [i, o] };
  const operands = [values(shapes.code), values(shapes.basis), values(shapes.x)];
  const more = [...(base ? [values(shapes.base)] : []), ...offsets];
  const wants = ['code', 'basis', 'x', ...(base ? ['base'] : [])];
  const attrs = { base, ragged: offsets.length > 0 };
  const denseIns = offsets.length > 0 ? [operands.length + more.length - (gradients ? 0 : 1)] : [];
  return gradients
    ? {
        ins: [...operands, values([rows, o]), ...more],
        outs: wants.map(slot => ({ shape: shapes[slot] })),
        attrs: { ...attrs, wants },
        denseIns,
        tolerance: 1e-4,
      }
    : { ins: [...operands, ...more], outs: [{ shape: [rows, o] }], attrs, denseIns, tolerance: 1e-4 };
}

const rows = axes(edge(9), edge(9), fc.oneof(positive(257), fc.constantFrom(1023, 1025)));
const softmax: Edges = {
  sizes: rows,
  of: (shape, values) => ({ ins: [values(shape)], outs: [{ shape }], tolerance: 1e-5 }),
};
const anyShape = fc.oneof(
  axes(edge(17), edge(17), edge(65)),
  fc.constantFrom([4095], [4096], [4097], [2, 4096], [16383], [16385], [1, 4100]),
);
const taken = axes(edge(3), positive(33), edge(17), edge(9));

const edges: Readonly<Record<string, Edges>> = {
  elementwise: {
    sizes: anyShape,
    of: (shape, values) => ({
      ins: [values(shape), values(shape)],
      outs: [{ shape }],
      attrs: { expr: scaled },
      tolerance: 1e-6,
    }),
  },
  copy: { sizes: anyShape, of: (shape, values) => ({ ins: [values(shape)], outs: [{ shape }] }) },
  cast: {
    sizes: anyShape,
    of: (shape, _values, whole) => ({ ins: [whole(shape, 1000)], outs: [{ shape }] }),
  },
  widen: {
    sizes: fc.oneof(axes(edge(17), edge(17), edge(65)), fc.constantFrom([1, 1, 2047], [1, 3, 4097])),
    of: ([a, b, n], _values, whole) => {
      const shape = [a, b, n];
      const [low, high] = [whole(shape, 0x7c00), whole(shape, 0x7c00)];
      const words = low.data.map((half, i) => half + high.data[i] * 0x10000);
      return { ins: [{ shape, data: words, dtype: 'u32' }], outs: [{ shape: [a, b, 2 * n] }] };
    },
  },
  reduce: {
    sizes: fc.tuple(rows, fc.nat(3)).map(([shape, kind]) => [...shape, kind]),
    of: ([a, b, c, kind], values) => {
      const shape = [a, b, c];
      const kept = shape.slice(0, kind);
      const attrs = { fn: ['sum', 'max', 'sum', 'min'][kind], reduced: 3 - kind };
      return { ins: [values(shape)], outs: [{ shape: kept }], attrs, tolerance: 1e-4 };
    },
  },
  argmax: {
    sizes: rows,
    of: (shape, _values, whole) => ({
      ins: [{ ...whole(shape, 5), dtype: 'f32' }],
      outs: [{ shape: shape.slice(0, -1), dtype: 'i32' }],
    }),
  },
  softmax,
  logSoftmax: softmax,
  crossEntropy: {
    sizes: rows,
    of: ([a, b, n], values, whole) => ({
      ins: [values([a, b, n]), whole([a, b], n + 2, -1)],
      outs: [{ shape: [a, b] }],
      attrs: { smoothing: 0.1 },
      tolerance: 1e-5,
    }),
  },
  crossEntropyGradient: {
    sizes: rows,
    of: ([a, b, n], values, whole) => ({
      ins: [values([a, b, n]), whole([a, b], n + 2, -1), values([a, b])],
      outs: [{ shape: [a, b, n] }],
      attrs: { smoothing: 0 },
      tolerance: 1e-5,
    }),
  },
  normalise: {
    sizes: fc.oneof(rows, fc.constantFrom([1, 1, 2047], [3, 1, 9001], [1, 1, 16385])),
    of: ([a, b, n], values) => ({
      ins: [values([a, b, n])],
      outs: [{ shape: [a, b, n] }, { shape: [a, b] }],
      // A row of one element is divided by sqrt(eps): the rounding of its mean, 0, is not amplified beyond this.
      attrs: { eps: 1e-3, reduced: 1 },
      tolerance: 1e-4,
    }),
  },
  matmul: {
    sizes: fc.oneof(
      axes(edge(3), edge(65), edge(33), edge(65)),
      axes(positive(2), edge(129), edge(9), edge(33)),
    ),
    of: ([batch, m, k, n], values) => ({
      ins: [values([batch, m, k]), values([batch, k, n])],
      outs: [{ shape: [batch, m, n] }],
      tolerance: 1e-5,
    }),
  },
  conv2d: {
    sizes: convolved,
    of: (sizes, values) => {
      const { x, w, y, attrs } = convolution(sizes);
      return { ins: [values(x), values(w)], outs: [{ shape: y }], attrs, tolerance: 1e-5 };
    },
  },
  conv2dInput: {
    sizes: convolved,
    of: (sizes, values) => {
      const { x, w, y, attrs } = convolution(sizes);
      return { ins: [values(y), values(w)], outs: [{ shape: x }], attrs, tolerance: 1e-5 };
    },
  },
  conv2dFilter: {
    sizes: convolved,
    of: (sizes, values) => {
      const { x, w, y, attrs } = convolution(sizes);
      return { ins: [values(x), values(y)], outs: [{ shape: w }], attrs, tolerance: 1e-4 };
    },
  },
  maxPool: {
    sizes: pooled,
    of: (sizes, values) => {
      const [n, , , , images, c] = sizes;
      const { o, attrs } = pooling(sizes);
      const shape = [images, o, o, c];
      return { ins: [values([images, n, n, c])], outs: [{ shape }, { shape, dtype: 'i32' }], attrs };
    },
  },
  maxPoolTake: {
    sizes: pooled,
    of: (sizes, values, whole) => {
      const [n, , , , images, c] = sizes;
      const { o } = pooling(sizes);
      const shape = [images, o, o, c];
      return { ins: [values([images, n, n, c]), whole(shape, n * n)], outs: [{ shape }] };
    },
  },
  maxPoolScatter: {
    sizes: pooled,
    of: async (sizes, values) => {
      const [n, , , , images, c] = sizes;
      const { o, attrs } = pooling(sizes);
      const shape = [images, n, n, c];
      const index = await maxima(values(shape), [images, o, o, c], attrs);
      return { ins: [values([images, o, o, c]), index], outs: [{ shape }], attrs, tolerance: 1e-6 };
    },
  },
  sumPool: sums(true),
  sumPoolSpread: sums(false),
  take: {
    sizes: taken,
    of: ([outer, size, indices, inner], values, whole) => ({
      ins: [values([outer, size, inner]), whole([indices], size + 2, -1)],
      outs: [{ shape: [outer, indices, inner] }],
      attrs: { axis: 1 },
    }),
  },
  scatterAdd: {
    sizes: taken,
    of: ([outer, size, indices, inner], values, whole) => ({
      ins: [values([outer, indices, inner]), whole([indices], size + 2, -1)],
      outs: [{ shape: [outer, size, inner] }],
      attrs: { axis: 1 },
      tolerance: 1e-5,
    }),
  },
  oneHot: {
    sizes: axes(edge(65), edge(5), positive(65)),
    of: ([a, b, depth], _values, whole) => ({
      ins: [whole([a, b], depth + 2, -1)],
      outs: [{ shape: [a, b, depth] }],
    }),
  },
  raggedMatmul: {
    sizes: raggedSizes,
    of: ([tasks, rows, k, n], values) => ({
      ins: [values([rows, k]), values([tasks, k, n]), ragged(tasks, rows)],
      outs: [{ shape: [rows, n] }],
      denseIns: [2],
      tolerance: 1e-5,
    }),
  },
  raggedOuter: {
    sizes: raggedSizes,
    of: ([tasks, rows, i, o], values) => ({
      ins: [values([rows, i]), values([rows, o]), ragged(tasks, rows)],
      outs: [{ shape: [tasks, i, o] }],
      denseIns: [2],
      tolerance: 1e-5,
    }),
  },
  generateApply: {
    sizes: generated.map(([sizes, kind]) => [...sizes, kind]),
    of: (sizes, values) => generating(sizes, values, false),
  },
  generateGradients: {
    sizes: generated.map(([sizes, kind]) => [...sizes, kind]),
    of: (sizes, values) => generating(sizes, values, true),
  },
  random: {
    sizes: fc.oneof(axes(edge(257)), axes(positive(3), edge(65), edge(17)), fc.constantFrom([8191], [8193])),
    of: (shape, _values, whole) => ({
      ins: [{ ...whole([2], 1 << 30), dtype: 'u32' }],
      outs: [{ shape, dtype: 'u32' }],
      attrs: { start: 3 },
    }),
  },
};

/**
 * What computes nothing but measures machines; what take and raggedMatmul become in ranges, as theirs do here; and what
 * compiled steps make of several kernels, in webgpuChains.test.ts.
 */
const ELSEWHERE = ['machine', 'takeRange', 'raggedMatmulRange', 'chain'];

test('every kernel that is registered has its edges here', () => {
  expect([...Object.keys(edges), ...ELSEWHERE].sort()).toEqual([...node.kernels.keys()].sort());
});

function valuesOf(random: () => number): { values: Values; whole: Whole } {
  return {
    values: shape => dense(shape, random),
    whole: (shape, below, from = 0) => ({
      shape,
      data: Array.from({ length: product(shape) }, () => from + Math.floor(random() * below)),
      dtype: 'i32',
    }),
  };
}

onBothTiers(() => {
  for (const [kernel, { sizes, of }] of Object.entries(edges))
    fuzz(
      `${kernel} at its edges, whole and in ranges`,
      sizes,
      async (drawn, random) => {
        const { values, whole } = valuesOf(random);
        const example = await of(drawn, values, whole);
        const wanted = await onRef(kernel, example);
        const outs = example.outs.map((y, i) => ({ ...y, data: wanted[i], tolerance: example.tolerance }));
        await check(kernel, random, { ...example, outs }, true);
      },
      4,
    );
});

describe('ranges', () => {
  useDevice({ software: false });
  /** Gives the device bindings of `most` bytes while `body` runs. */
  const withBindings = async (most: number, body: () => Promise<void> | void): Promise<void> => {
    const { limits } = (gpu as Backend & Tunable).device;
    const { maxStorageBufferBindingSize } = limits;
    limits.maxStorageBufferBindingSize = most;
    try {
      await body();
    } finally {
      limits.maxStorageBufferBindingSize = maxStorageBufferBindingSize;
    }
  };

  // Each operand that a binding of 4 KiB cannot hold, one after the other, with shapes that only one cut helps.
  const large: readonly [kernel: string, sizes: readonly number[]][] = [
    ['elementwise', [4096]],
    ['copy', [3, 4096]],
    ['cast', [4096]],
    ['widen', [3, 9, 65]],
    ['widen', [1, 1, 2049]],
    ['reduce', [1, 1, 9000, 0]],
    ['reduce', [1, 9, 513, 2]],
    ['argmax', [9, 3, 129]],
    ['softmax', [3, 9, 129]],
    ['logSoftmax', [3, 9, 129]],
    ['crossEntropy', [3, 9, 129]],
    ['crossEntropyGradient', [3, 9, 129]],
    ['normalise', [3, 9, 129]],
    ['oneHot', [3, 31, 65]],
    ['matmul', [1, 300, 4, 1]],
    ['matmul', [1, 1, 300, 4]],
    ['matmul', [64, 4, 5, 6]],
    ['conv2d', [5, 2, 1, 0, 2, 9, 4, 3]],
    ['conv2dInput', [5, 2, 1, 0, 2, 9, 4, 3]],
    ['conv2dFilter', [5, 2, 1, 0, 1, 17, 4, 3]],
    ['maxPool', [8, 2, 2, 0, 7, 5]],
    ['maxPoolTake', [8, 2, 2, 0, 7, 5]],
    ['maxPoolScatter', [8, 2, 2, 0, 7, 5]],
    ['sumPool', [8, 2, 2, 0, 7, 5]],
    ['sumPoolSpread', [8, 2, 2, 0, 7, 5]],
    ['take', [1, 257, 5, 9]],
    ['take', [1, 5, 257, 9]],
    ['scatterAdd', [1, 257, 5, 9]],
    ['scatterAdd', [1, 5, 257, 9]],
    ['raggedMatmul', [9, 7, 17, 16]],
    ['raggedMatmul', [2, 65, 33, 1]],
    ['raggedOuter', [9, 7, 17, 16]],
    ['raggedOuter', [2, 65, 33, 1]],
    ['generateApply', [3, 17, 9, 8, 1, 1]],
    ['generateApply', [31, 2, 17, 5, 3, 0]],
    ['generateApply', [31, 2, 17, 5, 3, 3]],
    ['generateGradients', [3, 17, 9, 8, 1, 1]],
    ['generateGradients', [31, 2, 17, 5, 3, 0]],
    ['generateGradients', [31, 2, 17, 5, 3, 3]],
    ['random', [2049]],
  ];
  test('are tried of every kernel', () => {
    expect([...new Set(large.map(([kernel]) => kernel))].sort()).toEqual(Object.keys(edges).sort());
  });
  for (const [kernel, sizes] of large)
    onDevice(`serve ${kernel} of [${sizes}] by bindings of 4 KiB`, async () => {
      const { values, whole } = valuesOf(uniform(product(sizes)));
      const example = await edges[kernel].of(sizes, values, whole);
      const most = Math.max(...[...example.ins, ...example.outs].map(({ shape }) => product(shape) * 4));
      expect(most).toBeGreaterThan(4096);
      const wanted = await onRef(kernel, example);
      await withBindings(4096, async () => {
        const ins = example.ins.map(x => upload(gpu, x, x.dtype));
        const outs = example.outs.map(y => target(gpu, y.shape, y.dtype));
        gpu.run([command(kernel, outs, ins, example.attrs)]);
        for (const [i, y] of outs.entries())
          expect(difference(await gpu.read(y), wanted[i], example.tolerance ?? 0)).toBeNull();
      });
    });

  onDevice('are refused where a kernel needs a whole row at once', async () => {
    const x = upload(gpu, dense([2, 2000], uniform(1)));
    await withBindings(4096, () => {
      let failure: unknown;
      try {
        gpu.run([command('softmax', [target(gpu, [2, 2000])], [x])]);
      } catch (error) {
        failure = (error as KernelFailure).cause;
      }
      expect(failure).toBeInstanceOf(DeviceLimitError);
      expect(String(failure)).toMatch(/shape \[1,2000\] spans 8000 bytes.*at most 4096.*'softmax'/);
    });
  });

  onDevice('serve compiled steps, epilogues and bundles, and again when their inputs move', async () => {
    use(gpu);
    const random = uniform(5);
    const make = (shape: readonly number[]) => tensor(Float32Array.from(dense(shape, random).data), shape);
    const bias = make([1, 40]);
    const step = (x: Tensor, w: Tensor): [Tensor, Tensor, Tensor] => {
      const y = relu(addOp(matmul(x, w), bias));
      return [y, mulOp(x, 2), sumOp(y)];
    };
    const compiled = compile(step);
    const inputs = [0, 1].map(() => [make([40, 33]), make([33, 40])] as const);
    const expected = await Promise.all(
      inputs.map(async ([x, w]) => Promise.all(step(x, w).map(async y => [...(await y.data())]))),
    );
    await withBindings(4096, async () => {
      for (const [i, [x, w]] of [...inputs.entries(), ...inputs.entries()]) {
        const got = compiled(x, w);
        for (const [k, y] of got.entries())
          expect(difference(await y.data(), expected[i][k], 1e-5)).toBeNull();
      }
    });
    compiled.dispose();
  });
});
