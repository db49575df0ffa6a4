/** WebGPU kernels against straightforward loops, over fuzzed shapes, strides and windows. */
import fc from 'fast-check';
import { describe, expect } from 'vitest';
import type { DType, Expr, Scalar } from '../src/core/backend.js';
import {
  at,
  check,
  command,
  type Dense,
  dense,
  difference,
  downloadWindow,
  each,
  filled,
  fuzz,
  gpu,
  newStorage,
  onBothTiers,
  onDevice,
  shape,
  sum,
  target,
  uniform,
  upload,
  upTo,
  viewOf,
  type Wanted,
} from './webgpu-support.js';

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
  return expr.outs.map(r => (r >= 0 ? registers[r] : expr.immediates[-1 - r]));
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
    outs: Array.from({ length: outs }, (_, o) =>
      o === 0 ? inputs + length - 1 : pick(inputs + length + 2) - 2,
    ),
  };
}

onBothTiers(() => {
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
      const expr: Expr = {
        inputs: 1,
        immediates: [10],
        code: [{ scalar: mul, args: [0, -1] }],
        outs: [1, 0],
      };
      gpu.run([command('elementwise', [y, z], [viewOf(x.storage, [2, 3], [0, 1])], { expr })]);
      expect([...(await gpu.read(y))]).toEqual([10, 20, 30, 10, 20, 30]);
      expect([...(await gpu.read(z))]).toEqual([1, 2, 3, 1, 2, 3]);
    });

    onDevice('fills with constants, infinities and NaN included', async () => {
      for (const value of [
        0,
        -0,
        1.5,
        Number.POSITIVE_INFINITY,
        Number.NEGATIVE_INFINITY,
        Number.NaN,
        1.2e-38, // Devices may flush what is smaller.
      ]) {
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
      expect(() => gpu.run([command('elementwise', [window], [turned, window], { expr })])).toThrow(
        /input 0/,
      );
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

    // From 64 columns on four at a time, where their number and the offset are multiples of four.
    for (const [rows, columns, offset] of [
      [5, 60, 0],
      [5, 64, 0],
      [1, 64, 4],
      [300, 68, 4],
      [33, 128, 2],
      [33, 130, 0],
      [7, 1028, 0],
    ])
      onDevice(`reduce folds ${columns} columns of ${rows} rows behind ${offset} elements`, async () => {
        const x = dense([offset + rows * columns], uniform(rows + columns));
        const view = { ...upload(gpu, x), shape: [columns, rows], strides: [1, columns], offset };
        const folds = { sum: (a: number, b: number) => a + b, max: Math.max, min: Math.min };
        for (const [fn, fold] of Object.entries(folds)) {
          const y = target(gpu, [columns]);
          gpu.run([command('reduce', [y], [view], { fn, reduced: 1 })]);
          const got = await gpu.read(y);
          for (let c = 0; c < columns; c++) {
            const column = Array.from({ length: rows }, (_, r) => x.data[offset + r * columns + c]);
            expect(got[c]).toBeCloseTo(
              column.reduce((a, b) => fold(a, b)),
              4,
            );
          }
        }
      });

    for (const sizes of [
      [1, 40000],
      [3, 5],
      [0, 4],
      [65, 64],
    ])
      onDevice(`reduce of [${sizes}] folds an expression, or runs one on what it folded`, async () => {
        const random = uniform(3);
        const [x, w] = [dense(sizes, random), dense(sizes, random)];
        const product = { shape: sizes, data: x.data.map((value, i) => value * w.data[i] + 2) };
        const code = [
          { scalar: mul, args: [0, 1] },
          { scalar: add, args: [2, -1] },
        ];
        const expr: Expr = { inputs: 2, immediates: [2], code, outs: [3] };
        const folded = { ...reduced('sum', product, 1), tolerance: 2e-5 };
        await check('reduce', random, {
          ins: [x, w],
          outs: [folded],
          attrs: { fn: 'sum', reduced: 1, prologue: expr },
        });
        const row = dense([sizes[0]], random);
        const plain = reduced('sum', x, 1);
        const scaled = { ...plain, data: plain.data.map((v, i) => v * row.data[i] + 2), tolerance: 2e-5 };
        await check('reduce', random, {
          ins: [x, row],
          outs: [scaled],
          attrs: { fn: 'sum', reduced: 1, epilogue: expr },
        });
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

    onDevice('multiplies enough large matrices for the largest tiles', async () => {
      const [batch, side, k] = [128, 130, 17];
      const random = uniform(11);
      const a = dense([batch, side, k], random);
      const b = dense([batch, k, side], random);
      const y = target(gpu, [batch, side, side]);
      gpu.run([command('matmul', [y], [upload(gpu, a), upload(gpu, b)])]);
      const got: Dense = { shape: [batch, side, side], data: [...(await gpu.read(y))] };
      for (let n = 0; n < 3000; n++) {
        const [t, i, j] = [batch, side, side].map(size => Math.floor(random() * size));
        const wanted = sum(k, l => at(a, t, i, l) * at(b, t, l, j));
        expect(Math.abs(at(got, t, i, j) - wanted)).toBeLessThan(1e-5);
      }
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
});
