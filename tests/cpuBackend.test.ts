import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createCpu } from '../src/backends/cpu.js';
import type { Backend, Command, Expr, Instruction, Plan, View } from '../src/core/backend.js';
import { KernelFailure } from '../src/core/backend.js';
import { MemoryError, NativeLoadError } from '../src/core/errors.js';
import { defineOp } from '../src/core/op.js';
import '../src/ops/index.js';
import { noise, storageOn, viewOf } from './cpuViews.js';

let cpu: Backend;
beforeAll(async () => {
  cpu = await createCpu({ threads: 2 });
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
