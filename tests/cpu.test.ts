import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import { createRef } from '../src/backends/ref.js';
import type {
  Attrs,
  Backend,
  Command,
  DType,
  Expr,
  Instruction,
  Plan,
  Storage,
  TypedArray,
  View,
} from '../src/core/backend.js';
import { KernelFailure } from '../src/core/backend.js';
import { MemoryError, NativeLoadError } from '../src/core/errors.js';
import { defineOp } from '../src/core/op.js';
import { scalarNamed } from '../src/ops/elementwise.js';
import '../src/ops/index.js';

let cpu: Backend;
let one: Backend;
const ref = createRef();
beforeAll(async () => {
  cpu = await createCpu({ threads: 2 });
  one = await createCpu({ threads: 1 });
});

let ids = 0;
const storageOn = (backend: Backend, dtype: DType, size: number): Storage => ({
  id: ids++,
  dtype,
  size,
  backend,
  memory: null,
  generation: 0,
  dead: null,
});
const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const denseStrides = (shape: readonly number[]) => shape.map((_, i) => sizeOf(shape.slice(i + 1)));
const viewOf = (storage: Storage, shape: readonly number[]): View => ({
  storage,
  shape,
  strides: denseStrides(shape),
  offset: 0,
  generation: 0,
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

/** Repeatable numbers around 0. */
function noise(n: number, seed: number): number[] {
  let state = seed * 2654435761 + 12345;
  return Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 30;
  });
}

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

  it('random', () => {
    const key = { layout: dense([2]), dtype: 'u32' as const, values: () => [0x13198a2e, 0x03707344] };
    for (const n of [1, 2, 3, 31, 1000, 40001])
      for (const dtype of ['u32', 'f32'] as const)
        for (const start of [0, 7, 0xfffffff0])
          compare('random', { start }, [{ layout: dense([n]), dtype }], [key]);
  });
});

describe('the backend', () => {
  const double: Expr = {
    inputs: 1,
    immediates: [2],
    code: [{ scalar: { name: 'mul', arity: 2, f: (a, b) => a * b, wgsl: 'a * b' }, args: [0, -1] }],
    outs: [1],
  };
  const doubled = (x: View, y: View): Command => ({
    kernel: 'elementwise',
    op: 'mul',
    outs: [y],
    ins: [x],
    attrs: { expr: double },
  });
  const filled = (values: number[]) => {
    const view = viewOf(storageOn(cpu, 'f32', values.length), [values.length]);
    cpu.write(view.storage, Float32Array.from(values));
    return view;
  };
  const empty = (n: number) => viewOf(storageOn(cpu, 'f32', n), [n]);

  it('binds memory at the flush, and reads what was there at the call', async () => {
    const x = filled([1, 2, 3]);
    const y = empty(3);
    expect(y.storage.memory).toBeNull();
    cpu.run([doubled(x, y)]);
    const pending = cpu.read(y);
    cpu.write(y.storage, Float32Array.of(0, 0, 0));
    expect([...(await pending)]).toEqual([2, 4, 6]);
  });

  it('resolves reads in a macrotask', async () => {
    const order: string[] = [];
    const read = cpu.read(filled([1])).then(() => order.push('read'));
    for (let i = 0; i < 20; i++) await Promise.resolve();
    order.push('microtasks');
    await read;
    expect(order).toEqual(['microtasks', 'read']);
  });

  it('reads strided views as dense arrays', () => {
    const x = filled([1, 2, 3, 4, 5, 6]);
    expect([...cpu.readSync({ ...x, shape: [3, 2], strides: [1, 3] })]).toEqual([1, 4, 2, 5, 3, 6]);
    expect([...cpu.readSync({ ...x, shape: [2, 2], strides: [0, 2], offset: 1 })]).toEqual([2, 4, 2, 4]);
  });

  it('refuses a view outside its storage, having run the commands before it', () => {
    const x = filled([1, 2, 3, 4]);
    const [y, z] = [empty(4), empty(4)];
    const beyond = { ...x, offset: 1 };
    const bad = [doubled(x, y), doubled(beyond, z)];
    expect(() => cpu.run(bad)).toThrowError(/not within a slot of 16 bytes/);
    try {
      cpu.run(bad);
    } catch (error) {
      expect((error as KernelFailure).index).toBe(1);
    }
    expect([...cpu.readSync(y)]).toEqual([2, 4, 6, 8]);
  });

  it('refuses operands whose shapes do not fit, and inputs nothing has written', () => {
    const x = filled([1, 2, 3, 4]);
    expect(() => cpu.run([doubled(x, empty(3))])).toThrowError(/shape/);
    expect(() => cpu.run([doubled(empty(4), empty(4))])).toThrowError(KernelFailure);
  });

  it('names a tensor too large for memory, having run the commands before it', () => {
    const [x, y] = [filled([1, 2]), empty(2)];
    const huge = { ...empty(2 ** 40), shape: [2], strides: [1] };
    try {
      cpu.run([doubled(x, y), doubled(y, huge)]);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(KernelFailure);
      expect((error as KernelFailure).index).toBe(1);
      expect((error as KernelFailure).cause).toBeInstanceOf(MemoryError);
    }
    expect([...cpu.readSync(y)]).toEqual([2, 4]);
  });

  it('reuses memory given back', () => {
    const n = 1 << 16;
    const before = cpu.describe().cachedBytes as number;
    const x = empty(n);
    cpu.write(x.storage, new Float32Array(n));
    cpu.free(x.storage);
    expect(cpu.describe().cachedBytes).toBeGreaterThan(before);
    const y = empty(n);
    cpu.write(y.storage, new Float32Array(n));
    expect(cpu.describe().cachedBytes).toBe(before);
  });

  const triple: Instruction['scalar'] = { name: 'tripleForTest', arity: 1, f: a => 3 * a, wgsl: '3.0 * a' };
  const tripled = (x: View, y: View): Command => ({
    kernel: 'elementwise',
    op: 'triple',
    outs: [y],
    ins: [x],
    attrs: { expr: { inputs: 1, immediates: [], code: [{ scalar: triple, args: [0] }], outs: [1] } },
  });
  defineOp({
    name: 'reverseForTest',
    ref: ([out], [x]) => {
      for (let i = 0; i < x.data.length; i++) out.data[i] = x.data[x.data.length - 1 - i];
    },
  });
  const reversed = (x: View, y: View): Command => ({
    kernel: 'reverseForTest',
    op: 'reverseForTest',
    outs: [y],
    ins: [x],
    attrs: {},
  });

  it('runs what the addon lacks by the reference loop on the same memory, and counts it', async () => {
    const backend = await createCpu();
    const make = (n: number) => viewOf(storageOn(backend, 'f32', n), [n]);
    const [x, a, b, c, d] = Array.from({ length: 5 }, () => make(3));
    backend.write(x.storage, Float32Array.of(1, 2, 3));
    expect(backend.has('reverseForTest')).toBe(true);
    expect(backend.has('nothing of the kind')).toBe(false);
    backend.run([doubled(x, a), reversed(a, b), doubled(b, c), tripled(c, d)]);
    expect([...backend.readSync(d)]).toEqual([36, 24, 12]);
    expect(backend.describe().fallbacks).toBe(2);
  });

  it('replays a prepared plan on other storages, native and fallback commands in order', async () => {
    const backend = await createCpu();
    const make = (n: number) => viewOf(storageOn(backend, 'f32', n), [n]);
    const n = 100;
    const [x, y, s, t, u] = Array.from({ length: 5 }, () => make(n));
    const commands = [doubled(x, s), reversed(s, t), doubled(t, u), tripled(u, y)];
    const plan: Plan = {
      commands,
      externals: [x.storage, y.storage],
      buffers: [3 * 448],
      places: new Map([s, t, u].map((v, i) => [v.storage, { buffer: 0, offset: i * 448 }])),
    };
    const step = backend.prepare(plan);
    for (const seed of [1, 2]) {
      const [from, to] = [make(n), make(n)];
      const values = Float32Array.from(noise(n, seed));
      backend.write(from.storage, values);
      step.run([from.storage, to.storage]);
      const want = [...values].reverse().map(v => Math.fround(3 * Math.fround(4 * v)));
      expect([...backend.readSync(to)]).toEqual(want);
    }
    // A larger plan moves the shared scratch; the first one must notice.
    const big = [make(50000), make(50000), make(50000)];
    const larger = backend.prepare({
      commands: [doubled(big[0], big[1]), doubled(big[1], big[2])],
      externals: [big[0].storage, big[2].storage],
      buffers: [200000],
      places: new Map([[big[1].storage, { buffer: 0, offset: 0 }]]),
    });
    backend.write(big[0].storage, new Float32Array(50000).fill(1));
    larger.run([big[0].storage, big[2].storage]);
    expect(backend.readSync(big[2])[49999]).toBe(4);
    const [from, to] = [make(n), make(n)];
    backend.write(from.storage, new Float32Array(n).fill(1));
    step.run([from.storage, to.storage]);
    expect(backend.readSync(to)[n - 1]).toBe(12);
    step.dispose();
    larger.dispose();
    expect(backend.describe().programs).toBe(0);
  });

  it('refuses to prepare a plan whose storages have no place', () => {
    const [x, s] = [empty(4), empty(4)];
    const plan = { commands: [doubled(x, s)], externals: [x.storage], buffers: [], places: new Map() };
    expect(() => cpu.prepare(plan)).toThrowError(/slot/);
  });

  describe('without an addon', () => {
    const saved = process.env.WEIGHTLOOM_NATIVE;
    afterEach(() => {
      if (saved === undefined) delete process.env.WEIGHTLOOM_NATIVE;
      else process.env.WEIGHTLOOM_NATIVE = saved;
    });
    it.each(['off', './no/such.node', './package.json'])('throws NativeLoadError for %s', async value => {
      process.env.WEIGHTLOOM_NATIVE = value;
      await expect(createCpu()).rejects.toBeInstanceOf(NativeLoadError);
    });
  });
});
