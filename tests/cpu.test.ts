import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import { createRef } from '../src/backends/ref.js';
import type {
  Attrs,
  Backend,
  Command,
  DType,
  Expr,
  Instruction,
  Storage,
  TypedArray,
  View,
} from '../src/core/backend.js';
import { scalarNamed } from '../src/ops/elementwise.js';
import '../src/ops/index.js';
import { denseStrides, noise, sizeOf, storageOn, viewOf } from './cpuViews.js';

let cpu: Backend;
let one: Backend;
const ref = createRef();
beforeAll(async () => {
  cpu = await createCpu({ threads: 2 });
  one = await createCpu({ threads: 1 });
});

/** A view's layout, apart from its storage. */
interface Layout {
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly size: number;
}
/** Any layout of `shape`: axes permuted in memory, with gaps, and with some broadcast if `broadcast`. */
const layouts = (shape: readonly number[], broadcast: boolean): fc.Arbitrary<Layout> =>
  fc
    .record({
      order: fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }),
      plain: fc.boolean(),
      gaps: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: shape.length, maxLength: shape.length }),
      zero: fc.array(fc.integer({ min: 0, max: 2 }), { minLength: shape.length, maxLength: shape.length }),
      offset: fc.integer({ min: 0, max: 5 }),
    })
    .map(({ order, plain, gaps, zero, offset }) => {
      if (plain) return { shape, strides: denseStrides(shape), offset: 0, size: sizeOf(shape) };
      const strides = new Array<number>(shape.length).fill(0);
      let next = 1;
      for (const k of order) {
        if (broadcast && zero[k] === 0) continue;
        strides[k] = next * (1 + (gaps[k] === 2 ? 1 : 0));
        next = Math.max(1, strides[k] * shape[k] + (gaps[k] === 1 ? 1 : 0));
      }
      return { shape, strides, offset, size: offset + next };
    });
const dense = (shape: readonly number[]): Layout => ({
  shape,
  strides: denseStrides(shape),
  offset: 0,
  size: sizeOf(shape),
});
const shapes = fc.oneof(
  fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 4 }),
  fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 3 }),
  fc.tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 250, max: 1300 })),
);

interface Operand {
  readonly layout: Layout;
  readonly dtype?: DType;
  readonly values?: (n: number) => ArrayLike<number>;
}
const typed = (dtype: DType, values: ArrayLike<number>): TypedArray =>
  dtype === 'f32'
    ? Float32Array.from(values)
    : dtype === 'i32'
      ? Int32Array.from(values)
      : Uint32Array.from(values);

/** The command on one backend. Outs begin as sevens, so that a stray write is seen in the whole storage. */
function build(backend: Backend, kernel: string, attrs: Attrs, outs: Operand[], ins: Operand[]): Command {
  const make = ({ layout, dtype = 'f32', values }: Operand, i: number): View => {
    const storage = storageOn(backend, dtype, layout.size);
    backend.write(storage, typed(dtype, values?.(layout.size) ?? noise(layout.size, i + 1)));
    return { storage, shape: layout.shape, strides: layout.strides, offset: layout.offset, generation: 0 };
  };
  const filled = outs.map(o => ({ ...o, values: (n: number) => new Array<number>(n).fill(7) }));
  return { kernel, op: kernel, attrs, outs: filled.map(make), ins: ins.map(make) };
}
const whole = (storage: Storage) => viewOf(storage, [storage.size]);

/** Runs the command on cpu with one and two threads, and on ref, and compares the outs' whole storages. */
function compare(
  kernel: string,
  attrs: Attrs,
  outs: Operand[],
  ins: Operand[],
  tolerance: { relative?: number; absolute?: number } = {},
): void {
  const results = [cpu, one, ref].map(backend => {
    const command = build(backend, kernel, attrs, outs, ins);
    backend.run([command]);
    return command.outs.map(v => backend.readSync(whole(v.storage)));
  });
  const [got, alone, want] = results;
  got.forEach((values, k) => {
    expect([...alone[k]]).toEqual([...values]);
    for (let i = 0; i < values.length; i++) {
      const [a, b] = [values[i], want[k][i]];
      if (Object.is(a, b) || a === b) continue;
      const bound = (tolerance.absolute ?? 0) + (tolerance.relative ?? 0) * Math.abs(b);
      if (!(Math.abs(a - b) <= bound))
        throw new Error(`${kernel}: out ${k}, element ${i}: ${a}, ref says ${b}`);
    }
  });
  expect(cpu.describe().fallbacks).toBe(0);
}

const scalar = (name: string) => {
  const found = scalarNamed(name);
  if (!found) throw new Error(`no scalar ${name}`);
  return found;
};

describe('elementwise', () => {
  const exact =
    'add sub mul div neg sqrt relu abs sign min max floor where eq ne lt le gt ge leakyRelu clamp square recip isFinite';
  const names = exact.split(' ');

  it('evaluates random expressions on random layouts, bit for bit', () => {
    const programs = shapes.chain(shape =>
      fc.record({
        outLayouts: fc.array(layouts(shape, false), { minLength: 1, maxLength: 3 }),
        inLayouts: fc.array(layouts(shape, true), { maxLength: 4 }),
        code: fc.array(
          fc.record({ name: fc.constantFrom(...names), args: fc.tuple(fc.nat(), fc.nat(), fc.nat()) }),
          { minLength: 1, maxLength: 12 },
        ),
        outs: fc.array(fc.nat(), { minLength: 3, maxLength: 3 }),
      }),
    );
    fc.assert(
      fc.property(programs, ({ outLayouts, inLayouts, code, outs }) => {
        const inputs = inLayouts.length;
        const immediates = [0.5, -1.25];
        const register = (r: number, known: number) => (r % (known + 2)) - 2;
        const instructions = code.map(({ name, args }, j): Instruction => {
          const found = scalar(name);
          return {
            scalar: found,
            args: args.slice(0, found.arity).map(r => register(r, inputs + j)),
          };
        });
        const expr: Expr = {
          inputs,
          immediates,
          code: instructions,
          outs: outLayouts.map((_, k) => register(outs[k], inputs + code.length)),
        };
        compare(
          'elementwise',
          { expr },
          outLayouts.map(layout => ({ layout })),
          inLayouts.map(layout => ({ layout })),
        );
      }),
      { numRuns: 250, seed: 1 },
    );
  });

  /** Distance in units in the last place of f32. */
  const ulps = (a: number, b: number): number => {
    if (Object.is(a, b) || (Number.isNaN(a) && Number.isNaN(b))) return 0;
    if (!Number.isFinite(a) || !Number.isFinite(Math.fround(b))) return a === Math.fround(b) ? 0 : Infinity;
    const exponent = Math.max(-126, Math.floor(Math.log2(Math.abs(b))));
    return Math.abs(a - b) / 2 ** (exponent - 23);
  };
  const special = [
    0,
    -0,
    1,
    -1,
    Infinity,
    -Infinity,
    Number.NaN,
    1e-45,
    -1e-45,
    1e-40,
    3.4e38,
    -3.4e38,
    88.7,
    88.8,
    -87.4,
    -103.9,
    -104.5,
  ];
  const accurate: [string, number, number][] = [
    ['exp', -105, 90],
    ['expm1', -30, 90],
    ['log', 0, 100],
    ['log1p', -1, 3],
    ['tanh', -12, 12],
    ['sigmoid', -110, 30],
    ['softplus', -100, 30],
    ['silu', -80, 30],
    ['erf', -5, 5],
    ['sin', -100000, 100000],
    ['cos', -100000, 100000],
    ['rsqrt', 0, 1000],
  ];
  it.each(accurate)('%s is within 4 units in the last place', (name, low, high) => {
    const n = 40000;
    const spread = Float32Array.from({ length: n }, (_, i) => low + ((i + 0.5) / n) * (high - low));
    const near = Float32Array.from(
      { length: n },
      (_, i) => (low < 0 && i % 2 ? -1 : 1) * 2 ** (-30 + (i / n) * 31),
    );
    const beyond = name === 'sin' || name === 'cos' ? [1e6, -3e9, 1e30] : [];
    const x = Float32Array.from([...spread, ...near, ...special, ...beyond]);
    const source = viewOf(storageOn(cpu, 'f32', x.length), [x.length]);
    const out = viewOf(storageOn(cpu, 'f32', x.length), [x.length]);
    cpu.write(source.storage, x);
    const found = scalar(name);
    const expr: Expr = { inputs: 1, immediates: [], code: [{ scalar: found, args: [0] }], outs: [1] };
    cpu.run([{ kernel: 'elementwise', op: name, outs: [out], ins: [source], attrs: { expr } }]);
    const y = cpu.readSync(out);
    let worst = 0;
    let at = 0;
    for (let i = 0; i < x.length; i++) {
      // Below -87 the sigmoid inside silu is subnormal.
      if (name === 'silu' && x[i] < -87) continue;
      const error = ulps(y[i], found.f(x[i], 0, 0));
      if (error > worst) {
        worst = error;
        at = x[i];
      }
    }
    expect(worst, `worst at ${at}`).toBeLessThanOrEqual(4);
  });

  it('computes gelu and pow closely', () => {
    const layout = dense([4001]);
    const values = (n: number) => Float32Array.from({ length: n }, (_, i) => (i - 2000) / 200);
    for (const name of ['gelu', 'pow']) {
      const found = scalar(name);
      const args = [0, -1].slice(0, found.arity);
      const expr: Expr = { inputs: 1, immediates: [3], code: [{ scalar: found, args }], outs: [1] };
      compare('elementwise', { expr }, [{ layout }], [{ layout, values }], {
        relative: 3e-7,
        absolute: 2e-7,
      });
    }
  });

  it('writes in place only what no later instruction reads', () => {
    const n = 1500;
    const [mul, add] = [scalar('mul'), scalar('add')];
    // out 0 = 2a (in place of a), out 1 = a + b (in place of b).
    const expr: Expr = {
      inputs: 2,
      immediates: [2],
      code: [
        { scalar: mul, args: [0, -1] },
        { scalar: add, args: [0, 1] },
      ],
      outs: [2, 3],
    };
    const [a, b] = [1, 2].map(seed => {
      const view = viewOf(storageOn(cpu, 'f32', n), [n]);
      cpu.write(view.storage, Float32Array.from(noise(n, seed)));
      return view;
    });
    const [x, y] = [cpu.readSync(a), cpu.readSync(b)];
    cpu.run([{ kernel: 'elementwise', op: 'step', outs: [a, b], ins: [a, b], attrs: { expr } }]);
    expect([...cpu.readSync(a)]).toEqual([...x.map(v => 2 * v)]);
    expect([...cpu.readSync(b)]).toEqual([...x.map((v, i) => Math.fround(v + y[i]))]);
  });
});

describe('kernels agree with their reference loops', () => {
  const twoLayouts = (broadcast: boolean) =>
    shapes.chain(shape => fc.tuple(layouts(shape, false), layouts(shape, broadcast)));

  it('copy', () => {
    fc.assert(
      fc.property(twoLayouts(true), fc.constantFrom<DType>('f32', 'i32', 'u32'), ([to, from], dtype) => {
        const values = (n: number) => noise(n, 3).map(v => v * 1000);
        compare('copy', {}, [{ layout: to, dtype }], [{ layout: from, dtype, values }]);
      }),
      { numRuns: 300, seed: 2 },
    );
    compare('copy', {}, [{ layout: dense([100000]) }], [{ layout: dense([100000]) }]);
    const transposed = { ...dense([700, 300]), strides: [1, 700] };
    compare('copy', {}, [{ layout: dense([700, 300]) }], [{ layout: transposed }]);
  });

  it('cast', () => {
    const pairs = fc.constantFrom<[DType, DType]>(
      ['f32', 'i32'],
      ['f32', 'u32'],
      ['i32', 'f32'],
      ['u32', 'f32'],
      ['i32', 'u32'],
    );
    fc.assert(
      fc.property(twoLayouts(true), pairs, ([to, from], [source, target]) => {
        const values = (n: number) => noise(n, 4).map((v, i) => [v * 100, v * 3e9, 2 ** 31, -1][i % 4]);
        compare('cast', {}, [{ layout: to, dtype: target }], [{ layout: from, dtype: source, values }]);
      }),
      { numRuns: 100, seed: 3 },
    );
  });

  it('reduce', () => {
    const cases = fc.tuple(shapes, fc.nat(), fc.constantFrom('sum', 'max', 'min')).chain(([shape, r, fn]) => {
      const reduced = r % (shape.length + 1);
      const kept = shape.slice(0, shape.length - reduced);
      return fc.record({
        fn: fc.constant(fn),
        reduced: fc.constant(reduced),
        to: layouts(kept, false),
        from: layouts(shape, true),
        nan: fc.nat(9),
      });
    });
    fc.assert(
      fc.property(cases, ({ fn, reduced, to, from, nan }) => {
        const values = (n: number) => noise(n, 5).map((v, i) => (nan === 0 && i % 17 === 3 ? Number.NaN : v));
        compare('reduce', { fn, reduced }, [{ layout: to }], [{ layout: from, values }], {
          relative: 1e-5,
          absolute: 1e-5,
        });
      }),
      { numRuns: 250, seed: 4 },
    );
    for (const [shape, strides, kept] of [
      [[300000], [1], 0],
      [[8192 * 4], [1], 0],
      [[3, 20000], [20000, 1], 1],
      [[70, 9000], [1, 70], 1],
      [[70, 30, 300], [1, 70, 2100], 1],
      [[2, 70, 30, 300], [630000, 1, 70, 2100], 2],
    ] as const)
      for (const fn of ['sum', 'max'])
        compare(
          'reduce',
          { fn, reduced: shape.length - kept },
          [{ layout: dense(shape.slice(0, kept)) }],
          [{ layout: { shape, strides, offset: 0, size: sizeOf(shape) } }],
          { relative: 1e-5, absolute: 2e-3 },
        );
  });

  it('reduces what an expression yields, with the bits of the expression stored and then reduced', () => {
    const names = ['add', 'sub', 'mul', 'square', 'abs', 'where', 'gt', 'max'];
    const check = (fn: string, reduced: number, to: Layout, ins: Layout[], code: Expr['code']) => {
      const { shape } = ins[0];
      const operands = ins.map(layout => ({ layout }));
      const expr: Expr = {
        inputs: ins.length,
        immediates: [0.5],
        code,
        outs: [ins.length + code.length - 1],
      };
      const results = [cpu, one].flatMap(backend => {
        const fused = build(backend, 'reduce', { fn, reduced, prologue: expr }, [{ layout: to }], operands);
        const stored = build(backend, 'elementwise', { expr }, [{ layout: dense(shape) }], operands);
        const after = build(backend, 'reduce', { fn, reduced }, [{ layout: to }], [{ layout: dense(shape) }]);
        backend.run([fused, stored, { ...after, ins: stored.outs }]);
        return [fused, after].map(({ outs }) => [...backend.readSync(whole(outs[0].storage))]);
      });
      for (const values of results) expect(values).toEqual(results[0]);
    };
    const cases = fc.tuple(shapes, fc.nat(), fc.constantFrom('sum', 'max', 'min')).chain(([shape, r, fn]) =>
      fc.record({
        fn: fc.constant(fn),
        reduced: fc.constant(r % (shape.length + 1)),
        to: layouts(shape.slice(0, shape.length - (r % (shape.length + 1))), false),
        ins: fc.array(layouts(shape, true), { minLength: 1, maxLength: 3 }),
        code: fc.array(
          fc.record({ name: fc.constantFrom(...names), args: fc.tuple(fc.nat(), fc.nat(), fc.nat()) }),
          { minLength: 1, maxLength: 6 },
        ),
      }),
    );
    fc.assert(
      fc.property(cases, ({ fn, reduced, to, ins, code }) => {
        const instructions = code.map(({ name, args }, j): Instruction => {
          const found = scalar(name);
          return {
            scalar: found,
            args: args.slice(0, found.arity).map(r => (r % (ins.length + j + 1)) - 1),
          };
        });
        check(fn, reduced, to, ins, instructions);
      }),
      { numRuns: 250, seed: 15 },
    );
    const product = [{ scalar: scalar('mul'), args: [0, 1] }];
    for (const [shape, kept] of [
      [[30000], 0],
      [[8192 * 2], 0],
      [[3, 4097], 1],
      [[3, 4096], 1],
      [[900, 40], 1],
      [[40, 3, 700], 1],
    ] as const) {
      const row = { shape, strides: shape.map((_, k) => (k === shape.length - 1 ? 1 : 0)), offset: 0 };
      const rows = { ...row, size: shape[shape.length - 1] };
      for (const fn of ['sum', 'max'])
        check(fn, shape.length - kept, dense(shape.slice(0, kept)), [dense(shape), rows], product);
    }
  });

  it('pools what an expression yields, with the bits of the expression stored and then pooled', () => {
    for (const [shape, window, stride, pad, out] of [
      [
        [3, 28, 28, 64],
        [2, 2],
        [2, 2],
        [0, 0],
        [3, 14, 14, 64],
      ],
      [
        [2, 7, 9, 20],
        [2, 3],
        [3, 3],
        [1, 0],
        [2, 3, 3, 20],
      ],
      [
        [2, 6, 5, 3],
        [3, 3],
        [1, 2],
        [1, 1],
        [2, 6, 3, 3],
      ],
      [
        [1, 3, 700, 1],
        [2, 1],
        [2, 1],
        [0, 0],
        [1, 1, 700, 1],
      ],
    ] as const) {
      const channels = { shape, strides: [0, 0, 0, 1], offset: 0, size: shape[3] };
      const operands = [dense(shape), channels].map(layout => ({ layout }));
      const code = [
        { scalar: scalar('mul'), args: [0, 1] },
        { scalar: scalar('max'), args: [2, -1] },
      ];
      const expr: Expr = { inputs: 2, immediates: [0.25], code, outs: [3] };
      const outs = [{ layout: dense(out) }, { layout: dense(out), dtype: 'i32' as const }];
      const attrs = { window, stride, pad };
      const results = [cpu, one].flatMap(backend => {
        const fused = build(backend, 'maxPool', { ...attrs, prologue: expr }, outs, operands);
        const stored = build(backend, 'elementwise', { expr }, [{ layout: dense(shape) }], operands);
        const after = build(backend, 'maxPool', attrs, outs, [{ layout: dense(shape) }]);
        backend.run([fused, stored, { ...after, ins: stored.outs }]);
        return [fused, after].map(c => c.outs.map(v => [...backend.readSync(whole(v.storage))]));
      });
      for (const values of results) expect(values).toEqual(results[0]);
    }
  });

  it('argmax', () => {
    const cases = fc
      .tuple(shapes, fc.integer({ min: 1, max: 50 }))
      .chain(([kept, n]) =>
        fc.tuple(layouts(kept, false), layouts([...kept.slice(0, 3), n], true), fc.constant(kept)),
      )
      .filter(([, , kept]) => kept.length <= 3);
    fc.assert(
      fc.property(cases, fc.nat(3), ([to, from], nan) => {
        const values = (n: number) =>
          noise(n, 6).map((v, i) => (nan === 0 && i % 31 === 7 ? Number.NaN : Math.round(v * 4)));
        compare('argmax', {}, [{ layout: to, dtype: 'i32' }], [{ layout: from, values }]);
      }),
      { numRuns: 200, seed: 5 },
    );
  });

  const gathers = fc
    .record({
      shape: fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 3 }),
      axis: fc.nat(),
      index: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 2 }),
    })
    .chain(({ shape, axis, index }) => {
      const at = axis % shape.length;
      const taken = [...shape.slice(0, at), ...index, ...shape.slice(at + 1)];
      return fc.record({
        axis: fc.constant(at),
        whole: layouts(shape, false),
        taken: layouts(taken, false),
        index: layouts(index, true),
      });
    });
  const positions = (n: number) => noise(n, 8).map(v => Math.floor(v * 5));

  it('take', () => {
    fc.assert(
      fc.property(gathers, ({ axis, whole: x, taken, index }) => {
        const ins: Operand[] = [{ layout: x }, { layout: index, dtype: 'i32', values: positions }];
        compare('take', { axis }, [{ layout: taken }], ins);
      }),
      { numRuns: 300, seed: 6 },
    );
  });

  it('scatterAdd', () => {
    fc.assert(
      fc.property(gathers, ({ axis, whole: y, taken, index }) => {
        const ins: Operand[] = [{ layout: taken }, { layout: index, dtype: 'i32', values: positions }];
        compare('scatterAdd', { axis }, [{ layout: y }], ins, { absolute: 1e-6 });
      }),
      { numRuns: 300, seed: 7 },
    );
  });

  it('oneHot', () => {
    const cases = fc
      .tuple(fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 2 }), fc.integer({ min: 1, max: 9 }))
      .chain(([shape, depth]) => fc.tuple(layouts([...shape, depth], false), layouts(shape, true)));
    fc.assert(
      fc.property(cases, ([to, from]) => {
        compare('oneHot', {}, [{ layout: to }], [{ layout: from, dtype: 'i32', values: positions }]);
      }),
      { numRuns: 100, seed: 8 },
    );
  });

  it.each(['softmax', 'logSoftmax'])('%s', kernel => {
    const cases = shapes
      .filter(shape => shape.length > 0)
      .chain(shape => fc.tuple(layouts(shape, false), layouts(shape, true)));
    fc.assert(
      fc.property(cases, fc.nat(4), ([to, from], scale) => {
        const values = (n: number) => noise(n, 9).map(v => v * 10 ** scale * 0.1);
        compare(kernel, {}, [{ layout: to }], [{ layout: from, values }], { relative: 2e-6, absolute: 2e-6 });
      }),
      { numRuns: 200, seed: 9 },
    );
  });

  it.each(['crossEntropy', 'crossEntropyGradient'])('%s', kernel => {
    const ofGradient = kernel === 'crossEntropyGradient';
    const cases = fc
      .tuple(
        fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 3 }),
        fc.oneof(fc.integer({ min: 1, max: 21 }), fc.integer({ min: 60, max: 90 })),
      )
      .chain(([kept, n]) => {
        const [row, whole] = [[...kept], [...kept, n]];
        return fc.tuple(
          layouts(ofGradient ? whole : row, false),
          layouts(whole, true),
          layouts(row, true),
          layouts(row, true),
        );
      });
    fc.assert(
      fc.property(cases, fc.nat(4), fc.constantFrom(0, 0.1), ([to, x, y, g], scale, smoothing) => {
        const logits = { layout: x, values: (n: number) => noise(n, 9).map(v => v * 10 ** scale * 0.1) };
        const labels = { layout: y, dtype: 'i32' as const, values: positions };
        const ins = [logits, labels, ...(ofGradient ? [{ layout: g }] : [])];
        compare(kernel, { smoothing }, [{ layout: to }], ins, { relative: 2e-6, absolute: 2e-6 });
      }),
      { numRuns: 300, seed: 9 },
    );
  });

  it('random', () => {
    const key = { layout: dense([2]), dtype: 'u32' as const, values: () => [0x13198a2e, 0x03707344] };
    for (const n of [1, 2, 3, 31, 1000, 40001])
      for (const dtype of ['u32', 'f32'] as const)
        for (const start of [0, 7, 0xfffffff0])
          compare('random', { start }, [{ layout: dense([n]), dtype }], [key]);
  });
});
