/** Every WebGPU kernel against straightforward loops, over fuzzed shapes, strides and windows. */
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import type { Attrs, DType, Expr, Scalar } from '../src/core/backend.js';
import { threefry2x32 } from '../src/ops/random.js';
import {
  at,
  command,
  type Dense,
  dense,
  difference,
  downloadWindow,
  each,
  gpu,
  newStorage,
  onDevice,
  rowMajor,
  target,
  uniform,
  upload,
  useDevice,
  viewOf,
} from './webgpu-support.js';

useDevice();

interface Given extends Dense {
  readonly dtype?: DType;
}
interface Wanted extends Given {
  readonly tolerance?: number;
}
interface Case {
  readonly ins: readonly Given[];
  readonly outs: readonly Wanted[];
  readonly attrs?: Attrs;
  /** Operands that the kernel's contract promises dense. */
  readonly denseIns?: readonly number[];
  readonly denseOuts?: boolean;
}

/** Runs a kernel with scattered operands and compares its windows, and what surrounds them, with what is wanted. */
async function check(kernel: string, random: () => number, example: Case): Promise<void> {
  const ins = example.ins.map((x, i) =>
    upload(gpu, x, x.dtype, example.denseIns?.includes(i) ? undefined : random),
  );
  const outs = example.outs.map(y => target(gpu, y.shape, y.dtype, example.denseOuts ? undefined : random));
  gpu.run([command(kernel, outs, ins, example.attrs)]);
  for (const [i, wanted] of example.outs.entries()) {
    const got = await downloadWindow(gpu, outs[i]);
    const found = difference(got.data, wanted.data, wanted.tolerance ?? 0);
    const shapes = `${example.ins.map(x => `[${x.shape}]`).join(' ')} -> [${wanted.shape}]`;
    expect(found, `${kernel} ${JSON.stringify(example.attrs ?? {})} ${shapes}`).toBeNull();
    expect(got.clean, `${kernel} wrote outside its window`).toBe(true);
  }
  for (const view of [...ins, ...outs]) gpu.free(view.storage);
}

/** Checks a kernel on fuzzed examples. Shapes are baked into pipelines, so runs are few. */
function fuzz<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  body: (value: T, random: () => number) => Promise<void>,
) {
  onDevice(name, () =>
    fc.assert(
      fc.asyncProperty(arbitrary, fc.integer(), (value, seed) => body(value, uniform(seed))),
      { numRuns: 12, seed: 1 },
    ),
  );
}

const shape = (maxRank: number, maxSize = 6) =>
  fc.array(fc.oneof({ weight: 8, arbitrary: fc.integer({ min: 1, max: maxSize }) }, fc.constant(0)), {
    maxLength: maxRank,
  });
const upTo = (max: number) => fc.integer({ min: 1, max });
const filled = (sizes: readonly number[], value: (index: number[]) => number): Dense => {
  const data: number[] = [];
  each(sizes, index => data.push(value(index)));
  return { shape: sizes, data };
};
const sum = (n: number, term: (i: number) => number): number => {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
};

const add: Scalar = { name: 'add', arity: 2, f: (a, b) => a + b, wgsl: 'a + b' };
const mul: Scalar = { name: 'mul', arity: 2, f: (a, b) => a * b, wgsl: 'a * b' };
const relu: Scalar = { name: 'relu', arity: 1, f: a => Math.max(0, a), wgsl: 'math_max(a, 0.0)' };
const scalars = [add, mul, relu];

/** Evaluates an expression at one element, rounding after each instruction. */
function evaluate(expr: Expr, inputs: readonly number[]): number[] {
  const registers = [...inputs];
  for (const { scalar, args } of expr.code) {
    const [a, b, c] = args.map(r => (r >= 0 ? registers[r] : expr.immediates[-1 - r]));
    registers.push(Math.fround(scalar.f(a, b, c)));
  }
  return expr.outs.map(r => registers[r]);
}

/** A random expression over `inputs` registers and two immediates. */
function randomExpr(inputs: number, length: number, outs: number, random: () => number): Expr {
  const pick = (n: number) => Math.floor(random() * n);
  const code = Array.from({ length }, (_, j) => {
    const scalar = scalars[pick(scalars.length)];
    return { scalar, args: Array.from({ length: scalar.arity }, () => pick(inputs + j + 2) - 2) };
  });
  return {
    inputs,
    immediates: [Math.fround(random() * 2), Math.fround(-random())],
    code,
    outs: Array.from({ length: outs }, (_, o) => (o === 0 ? inputs + length - 1 : pick(inputs + length))),
  };
}

describe('elementwise', () => {
  fuzz(
    'evaluates any expression, with several outputs',
    fc.tuple(shape(5), fc.nat(3), upTo(5), upTo(3)),
    async ([sizes, inputs, length, outs], random) => {
      const expr = randomExpr(inputs, length, outs, random);
      const ins = Array.from({ length: inputs }, () => dense(sizes, random));
      const rows = filled(sizes, () => 0).data.map((_, i) =>
        evaluate(
          expr,
          ins.map(x => x.data[i]),
        ),
      );
      const wanted = expr.outs.map((_, o) => ({
        shape: sizes,
        data: rows.map(row => row[o]),
        tolerance: 1e-6,
      }));
      await check('elementwise', random, { ins, outs: wanted, attrs: { expr } });
    },
  );

  onDevice('broadcasts by strides of 0 and copies a register that is an input', async () => {
    const x = upload(gpu, { shape: [3], data: [1, 2, 3] });
    const y = target(gpu, [2, 3]);
    const z = target(gpu, [2, 3]);
    const expr: Expr = { inputs: 1, immediates: [10], code: [{ scalar: mul, args: [0, -1] }], outs: [1, 0] };
    gpu.run([command('elementwise', [y, z], [viewOf(x.storage, [2, 3], [0, 1])], { expr })]);
    expect([...(await gpu.read(y))]).toEqual([10, 20, 30, 10, 20, 30]);
    expect([...(await gpu.read(z))]).toEqual([1, 2, 3, 1, 2, 3]);
  });

  onDevice('fills with constants, infinities and NaN included', async () => {
    for (const value of [0, -0, 1.5, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN, 1e-38]) {
      const y = target(gpu, [5]);
      const expr: Expr = {
        inputs: 0,
        immediates: [value, 0],
        code: [{ scalar: add, args: [-1, -2] }],
        outs: [0],
      };
      gpu.run([command('elementwise', [y], [], { expr })]);
      expect(difference(await gpu.read(y), new Array(5).fill(Math.fround(value)), 0)).toBeNull();
    }
  });

  onDevice('works in place, on a window too, and refuses another layout', async () => {
    const x = upload(gpu, { shape: [6], data: [1, 2, 3, 4, 5, 6] });
    const expr: Expr = { inputs: 2, immediates: [], code: [{ scalar: mul, args: [0, 1] }], outs: [2] };
    const window = viewOf(x.storage, [2, 2], [3, 1], 1);
    gpu.run([command('elementwise', [window], [window, window], { expr })]);
    expect([...(await gpu.read(x))]).toEqual([1, 4, 9, 4, 25, 36]);
    const turned = viewOf(x.storage, [2, 2], [1, 3], 1);
    expect(() => gpu.run([command('elementwise', [window], [turned, window], { expr })])).toThrow(/input 0/);
    const other = viewOf(x.storage, [2, 2], [3, 1], 0);
    expect(() => gpu.run([command('elementwise', [window], [window, other], { expr })])).toThrow(/input 1/);
  });

  onDevice('writes two windows of one storage', async () => {
    const y = target(gpu, [2, 3]);
    const x = upload(gpu, { shape: [3], data: [1, 2, 3] });
    const expr: Expr = { inputs: 1, immediates: [], code: [{ scalar: add, args: [0, 0] }], outs: [0, 1] };
    const rows = [viewOf(y.storage, [3], [1], 0), viewOf(y.storage, [3], [1], 3)];
    gpu.run([command('elementwise', rows, [x], { expr })]);
    expect([...(await gpu.read(y))]).toEqual([1, 2, 3, 2, 4, 6]);
  });

  onDevice('compiles one pipeline for all offsets and immediates', async () => {
    const pipelines = () => (gpu.describe().counters as { pipelines: number }).pipelines;
    const x = upload(gpu, dense([40], uniform(1)));
    const y = target(gpu, [7]);
    const step = (n: number) => {
      const expr: Expr = { inputs: 1, immediates: [n], code: [{ scalar: mul, args: [0, -1] }], outs: [1] };
      gpu.run([command('elementwise', [y], [viewOf(x.storage, [7], [1], n)], { expr })]);
    };
    step(1);
    const before = pipelines();
    for (let n = 2; n < 30; n++) step(n);
    expect(pipelines()).toBe(before);
  });

  onDevice('calls two scalars of one name by their own text', async () => {
    const twice: Scalar = { name: 'mine', arity: 1, f: a => 2 * a, wgsl: '2.0 * a' };
    const thrice: Scalar = { name: 'mine', arity: 1, f: a => 3 * a, wgsl: '3.0 * a' };
    const x = upload(gpu, { shape: [1], data: [1] });
    const y = target(gpu, [1]);
    const code = [
      { scalar: twice, args: [0] },
      { scalar: thrice, args: [1] },
    ];
    gpu.run([command('elementwise', [y], [x], { expr: { inputs: 1, immediates: [], code, outs: [2] } })]);
    expect([...(await gpu.read(y))]).toEqual([6]);
  });

  onDevice('folds more workgroups than one dimension takes', async () => {
    const n = 65535 * 64 * 4 + 1000;
    const x = newStorage(gpu, 'f32', n);
    gpu.write(
      x,
      new Float32Array(n).map((_, i) => i & 1023),
    );
    const y = newStorage(gpu, 'f32', n);
    const expr: Expr = { inputs: 1, immediates: [1], code: [{ scalar: add, args: [0, -1] }], outs: [1] };
    gpu.run([command('elementwise', [viewOf(y, [n])], [viewOf(x, [n])], { expr })]);
    const got = await gpu.read(viewOf(y, [n]));
    expect(got.every((value, i) => value === (i & 1023) + 1)).toBe(true);
    gpu.free(x);
    gpu.free(y);
  });
});

describe('copy and cast', () => {
  fuzz(
    'copy moves any strided view',
    fc.tuple(shape(5), fc.constantFrom<DType>('f32', 'i32', 'u32')),
    async ([sizes, dtype], random) => {
      const x = filled(sizes, () => Math.floor(random() * 1e6));
      await check('copy', random, { ins: [{ ...x, dtype }], outs: [{ ...x, dtype }] });
    },
  );

  fuzz(
    'cast truncates',
    fc.tuple(shape(3), fc.constantFrom<DType>('f32', 'i32', 'u32'), fc.boolean()),
    async ([sizes, dtype, toFloat], random) => {
      const other = dtype === 'f32' ? 'i32' : toFloat ? 'f32' : dtype === 'i32' ? 'u32' : 'i32';
      const low = dtype === 'u32' || other === 'u32' ? 0 : -1000;
      const x = filled(sizes, () => low + random() * 2000).data.map(value =>
        dtype === 'f32' ? Math.fround(value) : Math.trunc(value),
      );
      const y = other === 'f32' ? x : x.map(Math.trunc);
      await check('cast', random, {
        ins: [{ shape: sizes, data: x, dtype }],
        outs: [{ shape: sizes, data: y, dtype: other }],
      });
    },
  );
});

const folds: Record<string, (values: number[]) => number> = {
  sum: values => values.reduce((a, b) => a + b, 0),
  max: values => values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY),
  min: values => values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY),
};

function reduced(fn: string, x: Dense, axes: number): Wanted {
  const kept = x.shape.slice(0, x.shape.length - axes);
  const folded = x.shape.slice(x.shape.length - axes);
  const y = filled(kept, index => {
    const values: number[] = [];
    each(folded, rest => values.push(at(x, ...index, ...rest)));
    return folds[fn](values);
  });
  return { ...y, tolerance: 1e-5 };
}

describe('reduce and argmax', () => {
  fuzz(
    'reduce folds trailing axes',
    fc.tuple(shape(4), fc.nat(4), fc.constantFrom('sum', 'max', 'min')),
    async ([sizes, axes, fn], random) => {
      const count = Math.min(axes, sizes.length);
      const x = dense(sizes, random);
      await check('reduce', random, {
        ins: [x],
        outs: [reduced(fn, x, count)],
        attrs: { fn, reduced: count },
      });
    },
  );

  for (const sizes of [
    [1, 40000],
    [3, 5000],
    [700, 33],
    [2, 70000],
  ])
    onDevice(`reduce shares rows of [${sizes}] among threads, and gives the same bits twice`, async () => {
      const random = uniform(7);
      const x = dense(sizes, random);
      for (const fn of ['sum', 'max']) {
        const wanted = { ...reduced(fn, x, 1), tolerance: 2e-5 };
        await check('reduce', random, { ins: [x], outs: [wanted], attrs: { fn, reduced: 1 } });
      }
      const view = upload(gpu, x);
      const twice = [0, 1].map(() => target(gpu, [sizes[0]]));
      for (const y of twice) gpu.run([command('reduce', [y], [view], { fn: 'sum', reduced: 1 })]);
      expect([...(await gpu.read(twice[0]))]).toEqual([...(await gpu.read(twice[1]))]);
    });

  onDevice('max and min propagate NaN and start from the infinities', async () => {
    const lowest = Number.NEGATIVE_INFINITY;
    const x = { shape: [3, 3], data: [1, Number.NaN, 3, lowest, lowest, lowest, 5, 6, 7] };
    const ins = [x];
    const outs = [{ shape: [3], data: [Number.NaN, lowest, 7] }];
    await check('reduce', uniform(1), { ins, outs, attrs: { fn: 'max', reduced: 1 } });
  });

  fuzz('argmax finds the first maximum', fc.tuple(shape(2), upTo(9)), async ([kept, n], random) => {
    const x = filled([...kept, n], () => Math.floor(random() * 4));
    const y = filled(kept, index => {
      const row = Array.from({ length: n }, (_, j) => at(x, ...index, j));
      return row.indexOf(Math.max(...row));
    });
    await check('argmax', random, { ins: [x], outs: [{ ...y, dtype: 'i32' }] });
  });

  onDevice('argmax counts NaN as the maximum', async () => {
    const x = { shape: [2, 3], data: [1, Number.NaN, 3, Number.NaN, Number.NaN, 3] };
    await check('argmax', uniform(1), { ins: [x], outs: [{ shape: [2], data: [1, 0], dtype: 'i32' }] });
  });
});

function product3(a: Dense, b: Dense): Wanted {
  const rank = a.shape.length - 2;
  const k = a.shape[rank + 1];
  const y = filled([...a.shape.slice(0, rank + 1), b.shape[rank + 1]], index => {
    const batch = index.slice(0, rank);
    const [m, n] = index.slice(rank);
    return sum(k, i => at(a, ...batch, m, i) * at(b, ...batch, i, n));
  });
  return { ...y, tolerance: 1e-5 * Math.sqrt(k + 1) };
}

describe('matmul', () => {
  const edge = fc.oneof(fc.constantFrom(0, 1, 2, 7, 8, 17, 31), upTo(40));
  fuzz(
    'multiplies batches of strided matrices',
    fc.tuple(shape(2, 3), edge, edge, edge),
    async ([batch, m, k, n], random) => {
      const a = dense([...batch, m, k], random);
      const b = dense([...batch, k, n], random);
      await check('matmul', random, { ins: [a, b], outs: [product3(a, b)] });
    },
  );

  for (const [m, k, n] of [
    [1, 3000, 5],
    [5, 2100, 1],
    [33, 1500, 20],
    [70, 65, 129],
    [128, 32, 64],
  ])
    onDevice(`multiplies [${m},${k}] by [${k},${n}]`, async () => {
      const random = uniform(m * n);
      const a = dense([m, k], random);
      const b = dense([k, n], random);
      await check('matmul', random, { ins: [a, b], outs: [product3(a, b)] });
    });

  onDevice('broadcasts a batch by strides of 0, and reads one storage as both factors', async () => {
    const a = dense([4, 4], uniform(3));
    const x = upload(gpu, a);
    const y = target(gpu, [3, 4, 4]);
    gpu.run([
      command(
        'matmul',
        [y],
        [viewOf(x.storage, [3, 4, 4], [0, 4, 1]), viewOf(x.storage, [3, 4, 4], [0, 1, 4])],
      ),
    ]);
    const turned = { shape: [4, 4], data: filled([4, 4], ([i, j]) => at(a, j, i)).data };
    const once = product3(a, turned).data;
    expect(difference(await gpu.read(y), [...once, ...once, ...once], 1e-5)).toBeNull();
  });

  const scaled: Expr = {
    inputs: 2,
    immediates: [0.5],
    code: [
      { scalar: add, args: [0, 1] },
      { scalar: relu, args: [2] },
      { scalar: mul, args: [3, -1] },
    ],
    outs: [4],
  };
  for (const k of [6, 2500])
    onDevice(`runs an epilogue before the store (k = ${k})`, async () => {
      const random = uniform(k);
      const a = dense([2, 9, k], random);
      const b = dense([2, k, 5], random);
      const bias = dense([5], random);
      const wanted = product3(a, b);
      const data = wanted.data.map((value, i) => evaluate(scaled, [value, bias.data[i % 5]])[0]);
      const views = [upload(gpu, a, 'f32', random), upload(gpu, b, 'f32', random)];
      const row = upload(gpu, bias);
      const y = target(gpu, [2, 9, 5], 'f32', random);
      const ins = [...views, viewOf(row.storage, [2, 9, 5], [0, 0, 1])];
      gpu.run([command('matmul', [y], ins, { epilogue: scaled })]);
      expect(difference((await downloadWindow(gpu, y)).data, data, wanted.tolerance!)).toBeNull();
    });

  onDevice('refuses to write where it reads', async () => {
    const x = upload(gpu, dense([4, 4], uniform(1)));
    expect(() => gpu.run([command('matmul', [x], [x, x])])).toThrow(/cannot read input 0/);
  });
});

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

  onDevice('softmax of a long row of large numbers shares threads', async () => {
    const x = filled([2, 3000], ([i, j]) => 1000 * i + Math.fround(Math.sin(j)));
    const total = sum(3000, j => Math.exp(Math.sin(j)));
    const y = filled([2, 3000], ([, j]) => Math.exp(Math.sin(j)) / total);
    await check('softmax', uniform(5), { ins: [x], outs: [{ ...y, tolerance: 1e-6 }] });
  });
});

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
