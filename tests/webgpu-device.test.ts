/** The WebGPU backend as a device: memory, order, errors, compiled steps, the life of the process. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { asleep } from '../src/backends/webgpu/asleep.js';
import { createOn } from '../src/backends/webgpu/backend.js';
import { Device } from '../src/backends/webgpu/device.js';
import { createWebGPU, findGpu } from '../src/backends/webgpu/index.js';
import type { Tunable } from '../src/backends/webgpu/tiling.js';
import { whole } from '../src/backends/webgpu/training.js';
import type { Backend, Expr, Plan, Scalar, Storage } from '../src/core/backend.js';
import { KernelFailure } from '../src/core/backend.js';
import {
  BackendError,
  DeviceLimitError,
  DeviceLostError,
  DisposedError,
  KernelError,
  MemoryError,
} from '../src/core/errors.js';
import { compile, init, mul as mulOp, type Tensor, tensor } from '../src/index.js';
import { command, cramped, gpu, newStorage, onDevice, useDevice, viewOf } from './webgpu-support.js';

useDevice();

const add: Scalar = { name: 'add', arity: 2, f: (a, b) => a + b, wgsl: 'a + b' };
const mul: Scalar = { name: 'mul', arity: 2, f: (a, b) => a * b, wgsl: 'a * b' };
const broken: Scalar = { name: 'broken', arity: 1, f: a => a, wgsl: 'no_such_function(a)' };

const unary = (scalar: Scalar, ...args: number[]): Expr => ({
  inputs: 1,
  immediates: [3],
  code: [{ scalar, args }],
  outs: [1],
});
const plusThree = unary(add, 0, -1);
const timesThree = unary(mul, 0, -1);
const binary = (scalar: Scalar): Expr => ({
  inputs: 2,
  immediates: [],
  code: [{ scalar, args: [0, 1] }],
  outs: [2],
});

interface Counters {
  pipelines: number;
  bindGroups: number;
  buffers: number;
  bytes: number;
  submits: number;
  passes: number;
  dispatches: number;
}
const counters = (backend: Backend = gpu): Counters => ({ ...(backend.describe().counters as Counters) });

/** Storages of n floats; `values` are written. */
const floats = (n: number, values?: number[]): Storage => {
  const storage = newStorage(gpu, 'f32', n);
  if (values) gpu.write(storage, Float32Array.from(values));
  return storage;
};
const values = async (storage: Storage): Promise<number[]> => [
  ...(await gpu.read(viewOf(storage, [storage.size]))),
];

describe('reading and writing', () => {
  onDevice('reads see what was queued before them, and nothing later', async () => {
    const x = floats(3, [1, 2, 3]);
    const before = values(x);
    gpu.run([command('elementwise', [viewOf(x, [3])], [viewOf(x, [3])], { expr: timesThree })]);
    const between = values(x);
    gpu.write(x, Float32Array.of(7, 8, 9));
    const after = values(x);
    expect(await Promise.all([before, between, after])).toEqual([
      [1, 2, 3],
      [3, 6, 9],
      [7, 8, 9],
    ]);
  });

  onDevice('a host array may be changed once write returns', async () => {
    const host = Float32Array.of(1, 2);
    const x = newStorage(gpu, 'f32', 2);
    gpu.write(x, host);
    host.fill(5);
    expect(await values(x)).toEqual([1, 2]);
  });

  onDevice('keeps the bits of every dtype, takes float64 and reads strided views', async () => {
    const words = newStorage(gpu, 'u32', 2);
    gpu.write(words, Uint32Array.of(0xdeadbeef, 0x7fc01234));
    expect([...(await gpu.read(viewOf(words, [2])))]).toEqual([0xdeadbeef, 0x7fc01234]);
    const whole = newStorage(gpu, 'i32', 1);
    gpu.write(whole, Int32Array.of(-5));
    expect(await gpu.read(viewOf(whole, [1]))).toEqual(Int32Array.of(-5));
    const x = newStorage(gpu, 'f32', 6);
    gpu.write(x, Float64Array.of(0, 1, 2, 3, 4, 5));
    expect([...(await gpu.read(viewOf(x, [3, 2], [1, 3])))]).toEqual([0, 3, 1, 4, 2, 5]);
    expect([...(await gpu.read(viewOf(x, [2], [1], 4)))]).toEqual([4, 5]);
  });

  onDevice('reads nothing as nothing, and resolves in a macrotask', async () => {
    const x = newStorage(gpu, 'f32', 0);
    expect(await gpu.read(viewOf(x, [0, 3]))).toEqual(new Float32Array(0));
    let macrotask = false;
    setImmediate(() => {
      macrotask = true;
    });
    await gpu.read(viewOf(floats(1, [1]), [1]));
    expect(macrotask).toBe(true);
  });

  onDevice('refuses what it cannot do, by name', async () => {
    const x = floats(2, [1, 2]);
    expect(() => gpu.readSync(viewOf(x, [2]))).toThrow(/await read/);
    expect(() => gpu.write(x, Float32Array.of(1))).toThrow(BackendError);
    await expect(gpu.read(viewOf(floats(2), [2]))).rejects.toThrow(/before anything was written/);
    const most = (gpu.describe().limits as { maxBufferSize: number }).maxBufferSize;
    const huge = newStorage(gpu, 'f32', Math.ceil(most / 4) + 1);
    const command0 = command('elementwise', [viewOf(huge, [huge.size])], [], {
      expr: { inputs: 0, immediates: [1, 0], code: [{ scalar: add, args: [-1, -2] }], outs: [0] },
    });
    let failure: unknown;
    try {
      gpu.run([command0]);
    } catch (error) {
      failure = error;
    }
    expect((failure as KernelFailure).cause).toBeInstanceOf(DeviceLimitError);
  });
});

describe('memory', () => {
  onDevice('hands out freed buffers again, though earlier work still reads them', async () => {
    const n = 100_000;
    const results: Promise<number[]>[] = [];
    const expr = plusThree;
    const warm = counters().buffers;
    for (let i = 0; i < 20; i++) {
      const x = floats(n, new Array(n).fill(i));
      const y = floats(n);
      gpu.run([command('elementwise', [viewOf(y, [n])], [viewOf(x, [n])], { expr })]);
      gpu.free(x);
      results.push(gpu.read(viewOf(y, [4])).then(read => [...read]));
      gpu.free(y);
    }
    expect(await Promise.all(results)).toEqual(results.map((_, i) => new Array(4).fill(i + 3)));
    expect(counters().buffers - warm).toBeLessThanOrEqual(2 + 20);
  });

  onDevice('a loop that never awaits makes no buffers and no bind groups once warm', async () => {
    const x = floats(64, new Array(64).fill(0));
    const step = () => {
      const y = floats(64);
      gpu.run([
        command('elementwise', [viewOf(y, [64])], [viewOf(x, [64])], { expr: plusThree }),
        command('copy', [viewOf(x, [64])], [viewOf(y, [64])]),
      ]);
      gpu.free(y);
    };
    step();
    const warm = counters();
    for (let i = 1; i < 500; i++) step();
    const after = counters();
    expect({ ...after, submits: 0, passes: 0, dispatches: 0 }).toEqual({
      ...warm,
      submits: 0,
      passes: 0,
      dispatches: 0,
    });
    expect(after.submits - warm.submits).toBe(499);
    expect((await values(x))[0]).toBe(1500);
  });

  onDevice('gives memory beyond its budget back, while the work that used it still runs', async () => {
    const n = 24 << 20;
    let y = floats(n);
    gpu.write(y, new Float32Array(n).fill(1));
    for (let i = 0; i < 6; i++) {
      const next = floats(n + (i << 20));
      const [to, from] = [viewOf(next, [n]), viewOf(y, [n])];
      gpu.run([command('elementwise', [to], [from], { expr: plusThree })]);
      gpu.free(y);
      y = next;
    }
    expect([...(await gpu.read(viewOf(y, [2], [1], n - 2)))]).toEqual([19, 19]);
    gpu.free(y);
    expect(counters().bytes).toBeLessThan((512 + 64 + 128) << 20);
  });

  onDevice('is had for a tensor larger than a binding', async () => {
    const { maxStorageBufferBindingSize: most } = (gpu as Backend & Tunable).device.limits;
    const n = most / 4 + 1000;
    const x = newStorage(gpu, 'f32', n);
    const expr: Expr = { inputs: 0, immediates: [1, 2], code: [{ scalar: add, args: [-1, -2] }], outs: [0] };
    gpu.run([command('elementwise', [viewOf(x, [n])], [], { expr })]);
    const y = newStorage(gpu, 'f32', 1);
    gpu.run([command('reduce', [viewOf(y, [])], [viewOf(x, [n])], { fn: 'min', reduced: 1 })]);
    expect([...(await gpu.read(viewOf(y, [1])))]).toEqual([3]);
    expect([...(await gpu.read(viewOf(x, [5], [1], n - 5)))]).toEqual([3, 3, 3, 3, 3]);
    gpu.free(x);
  });
});

describe('a loop that never awaits', () => {
  const other = { backend: undefined as Backend | undefined };
  afterAll(() => other.backend?.dispose());

  onDevice('is stopped before it makes more bind groups than a driver can bear', async () => {
    const backend = await createWebGPU();
    other.backend = backend;
    const views = Array.from({ length: 200 }, () => {
      const storage = newStorage(backend, 'f32', 1);
      backend.write(storage, Float32Array.of(1));
      return viewOf(storage, [1]);
    });
    const pair = (i: number) =>
      command('copy', [views[i % 200]], [views[(i + 1 + Math.floor(i / 200)) % 200]]);
    const loop = () => {
      for (let i = 0; i < 39_000; i += 500) backend.run(Array.from({ length: 500 }, (_, j) => pair(i + j)));
    };
    expect(loop).toThrow(/await sync\(\)/);
    await new Promise(resolve => setTimeout(resolve, 1));
    backend.run([pair(0)]);
    expect([...(await backend.read(views[0]))]).toEqual([1]);
  });
});

describe('errors', () => {
  onDevice('run tells which command failed, and what came before it has run', async () => {
    const x = floats(2, [1, 2]);
    const y = floats(2);
    const never = floats(2);
    const z = floats(2);
    let failure: unknown;
    try {
      gpu.run([
        command('elementwise', [viewOf(y, [2])], [viewOf(x, [2])], { expr: plusThree }),
        command('elementwise', [viewOf(z, [2])], [viewOf(never, [2])], { expr: plusThree }),
        command('elementwise', [viewOf(x, [2])], [viewOf(x, [2])], { expr: plusThree }),
      ]);
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(KernelFailure);
    expect((failure as KernelFailure).index).toBe(1);
    expect((failure as KernelFailure).cause).toBeInstanceOf(KernelError);
    expect(await values(y)).toEqual([4, 5]);
    expect(await values(x)).toEqual([1, 2]);
  });

  onDevice('a mistake in a user’s WGSL reaches the next read, naming op and kernel', async () => {
    const x = floats(2, [1, 2]);
    const y = floats(2);
    gpu.run([command('elementwise', [viewOf(y, [2])], [viewOf(x, [2])], { expr: unary(broken, 0) })]);
    const named = /elementwise \(kernel 'elementwise'\)[\s\S]*no_such_function/;
    await expect(values(y)).rejects.toThrow(named);
    expect(await values(x)).toEqual([1, 2]);
    const again = command('elementwise', [viewOf(y, [2])], [viewOf(x, [2])], { expr: unary(broken, 0) });
    expect(() => gpu.run([again])).toThrow(named);
  });

  onDevice('an unknown kernel, a bad attribute and too many buffers are named', async () => {
    const [x, y] = [floats(2, [1, 2]), floats(2)];
    expect(gpu.has('matmul')).toBe(true);
    expect(gpu.has('frobnicate')).toBe(false);
    expect(() => gpu.run([command('frobnicate', [viewOf(y, [2])], [viewOf(x, [2])])])).toThrow(
      /'frobnicate'/,
    );
    expect(() =>
      gpu.run([command('reduce', [viewOf(y, [])], [viewOf(x, [2])], { fn: 'mean', reduced: 1 })]),
    ).toThrow(/got 'mean'/);
    const many = Array.from({ length: gpu.limits.maxBindings }, () => viewOf(floats(2, [1, 1]), [2]));
    const expr: Expr = { inputs: many.length, immediates: [], code: [], outs: [0] };
    expect(() => gpu.run([command('elementwise', [viewOf(y, [2])], many, { expr })])).toThrow(/buffers/);
  });

  onDevice('a device is asked for all the limits that its adapter has', async () => {
    const api = await findGpu();
    const device = await Device.open(api, {});
    const { limits } = (await api.requestAdapter())!;
    for (const name of [
      'maxStorageBufferBindingSize',
      'maxBufferSize',
      'maxStorageBuffersPerShaderStage',
    ] as const) {
      expect(device.limits[name], name).toBe(limits[name]);
      expect(device.gpu.limits[name], name).toBe(limits[name]);
    }
    device.dispose();
  });

  onDevice('a lost device says so at every call', async () => {
    const device = await Device.open(await findGpu(), {});
    device.check();
    device.gpu.destroy();
    await device.gpu.lost;
    expect(() => device.check()).toThrow(DeviceLostError);
    expect(() => device.check()).toThrow(DeviceLostError);
  });

  onDevice('a lost backend rejects what waits for it, and init opens another', async () => {
    const first = await init({ backend: 'webgpu' });
    const step = compile((x: Tensor) => mulOp(x, 2));
    const x = tensor([1, 2]);
    const pending = step(x).data();
    const { gpu: handle } = (first as unknown as { device: Device }).device;
    handle.destroy();
    await handle.lost;
    await pending.catch(() => {});
    expect(() => step(x)).toThrow(DeviceLostError);
    await expect(x.data()).rejects.toThrow(DeviceLostError);
    const second = await init({ backend: 'webgpu' });
    expect(second).not.toBe(first);
    expect([...(await step(tensor([3, 4])).data())]).toEqual([6, 8]);
    expect(() => mulOp(x, tensor([1, 1]))).toThrow(BackendError);
    second.dispose();
  });

  onDevice('a disposed backend says so at every call', async () => {
    const other = await createWebGPU();
    const x = newStorage(other, 'f32', 1);
    other.write(x, Float32Array.of(1));
    const pending = other.read(viewOf(x, [1]));
    other.dispose();
    await expect(pending).rejects.toThrow(DisposedError);
    expect(() => other.write(x, Float32Array.of(1))).toThrow(DisposedError);
    await expect(other.sync()).rejects.toThrow(DisposedError);
  });
});

describe('a device without room', () => {
  const MOST = 1 << 20;
  const n = MOST / 2;
  const other = { backend: undefined as Backend | undefined };
  afterAll(() => other.backend?.dispose());

  onDevice('says so, at once drops what it kept for reuse, and goes on with less', async () => {
    const backend = await createOn(cramped(await findGpu(), MOST), {}, whole);
    other.backend = backend;
    const store = (size: number) => newStorage(backend, 'f32', size);
    const kept = store(1000);
    backend.write(kept, new Float32Array(1000));
    backend.free(kept);
    expect(counters(backend).buffers).toBe(1);

    const huge = store(n);
    backend.write(huge, new Float32Array(n));
    await expect(backend.sync()).rejects.toThrow(MemoryError);
    expect(counters(backend)).toMatchObject({ buffers: 0, bytes: 0 });
    expect(() => backend.write(huge, new Float32Array(n))).toThrow(/2097152 bytes/);
    backend.free(huge);

    const small = store(4);
    backend.write(small, Float32Array.of(1, 2, 3, 4));
    expect([...(await backend.read(viewOf(small, [4])))]).toEqual([1, 2, 3, 4]);
    await backend.sync();
  });

  onDevice('a compiled step whose scratch memory it refused throws when it is run', async () => {
    const backend = await createOn(cramped(await findGpu(), MOST), {}, whole);
    const [x, middle, y] = [1, n, 1].map(size => newStorage(backend, 'f32', size));
    backend.write(x, Float32Array.of(1));
    const step = () =>
      backend.prepare({
        commands: [
          command('copy', [viewOf(middle, [n])], [viewOf(x, [n], [0])]),
          command('reduce', [viewOf(y, [])], [viewOf(middle, [n])], { fn: 'sum', reduced: 1 }),
        ],
        externals: [x, y],
        buffers: [n * 4],
        places: new Map([[middle, { buffer: 0, offset: 0 }]]),
      });
    for (let i = 0; i < 2; i++) {
      const prepared = step();
      await expect(backend.sync()).rejects.toThrow(MemoryError);
      expect(() => prepared.run([x, y])).toThrow(MemoryError);
      prepared.dispose();
    }
    expect(counters(backend).bytes).toBeLessThan(MOST);
    backend.dispose();
  });
});

describe('prepared plans', () => {
  /** w := w + 3x and loss = sum(w + 3x), through scratch buffers; w is updated in place. */
  function plan(n: number): Plan {
    const [x, w, loss, scaled, sum] = [n, n, 1, n, n].map(size => newStorage(gpu, 'f32', size));
    const all = (storage: Storage) => viewOf(storage, [n]);
    return {
      commands: [
        command('elementwise', [all(scaled)], [all(x)], { expr: timesThree }),
        command('elementwise', [all(sum)], [all(w), all(scaled)], { expr: binary(add) }),
        command('reduce', [viewOf(loss, [])], [all(sum)], { fn: 'sum', reduced: 1 }),
        command('copy', [all(w)], [all(sum)]),
      ],
      externals: [x, w, loss],
      buffers: [n * 4, n * 4],
      places: new Map([
        [scaled, { buffer: 0, offset: 0 }],
        [sum, { buffer: 1, offset: 0 }],
      ]),
    };
  }

  for (const n of [5, 40_000])
    onDevice(`replay gives what eager gives, and makes nothing (n = ${n})`, async () => {
      const step = gpu.prepare(plan(n));
      const x = floats(n, new Array(n).fill(1));
      const w = floats(n, new Array(n).fill(0));
      const loss = floats(1);
      step.run([x, w, loss]);
      step.run([x, w, loss]);
      const warm = counters();
      for (let i = 2; i < 100; i++) step.run([x, w, loss]);
      const after = counters();
      const worked = { submits: 0, passes: 0, dispatches: 0 };
      expect({ ...after, ...worked }).toEqual({ ...warm, ...worked });
      expect(after.submits - warm.submits).toBe(98);
      expect(after.passes - warm.passes).toBe(98);
      expect((after.dispatches - warm.dispatches) % 98).toBe(0);
      expect(await values(loss)).toEqual([300 * n]);
      expect((await values(w)).every(value => value === 300)).toBe(true);
      step.dispose();
    });

  onDevice('externals may change, come unbound when written first, and share a buffer', async () => {
    const step = gpu.prepare(plan(4));
    const x = floats(4, [1, 2, 3, 4]);
    const losses = Array.from({ length: 3 }, () => floats(1));
    const w = floats(4, [0, 0, 0, 0]);
    for (const loss of losses) step.run([x, w, loss]);
    expect(await Promise.all(losses.map(values))).toEqual([[30], [60], [90]]);
    step.run([w, w, losses[0]]);
    expect(await values(w)).toEqual([36, 72, 108, 144]);
    step.run([x, w, losses[1]]);
    expect(await values(losses[1])).toEqual([390]);
    expect(() => step.run([floats(4), w, losses[0]])).toThrow(/external 0 is read/);
    expect(() => step.run([floats(5), w, losses[0]])).toThrow(/external 0 must hold 4 f32/);
    expect(() => step.run([x, w])).toThrow(BackendError);
    step.dispose();
  });

  onDevice('two plans share scratch memory without seeing each other', async () => {
    const before = counters().bytes;
    const small = gpu.prepare(plan(1000));
    const large = gpu.prepare(plan(100_000));
    const again = gpu.prepare(plan(100_000));
    expect(counters().bytes - before).toBeLessThan(2 * 100_000 * 4 * 1.3 + 20_000);
    const run = async (step: typeof small, n: number) => {
      const [x, w, loss] = [floats(n, new Array(n).fill(1)), floats(n, new Array(n).fill(0)), floats(1)];
      step.run([x, w, loss]);
      return values(loss);
    };
    const results = [run(small, 1000), run(large, 100_000), run(small, 1000), run(again, 100_000)];
    expect(await Promise.all(results)).toEqual([[3000], [300_000], [3000], [300_000]]);
    small.dispose();
    large.dispose();
    expect(await run(again, 100_000)).toEqual([300_000]);
    again.dispose();
  });
});

describe('the process', () => {
  const run = (script: string, env: Record<string, string> = {}) =>
    execFileSync(process.execPath, ['--expose-gc', '--input-type=module', '-e', script], {
      cwd: join(import.meta.dirname, '..'),
      encoding: 'utf8',
      env: { ...process.env, ...env },
      timeout: 20_000,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  const load = `import { createWebGPU } from './dist/src/backends/webgpu/index.js';`;

  onDevice('ends by itself, with and without dispose', async () => {
    const work = (end: string) => `${load}
      const gpu = await createWebGPU();
      const x = { id: 0, dtype: 'f32', size: 4, backend: gpu, memory: null, generation: 0, dead: null };
      gpu.write(x, Float32Array.of(1, 2, 3, 4));
      await gpu.read({ storage: x, shape: [4], strides: [1], offset: 0, generation: 0 });
      ${end}
      globalThis.gc();
      console.log('done');`;
    expect(run(work('gpu.dispose();'))).toContain('done');
    expect(run(work(''))).toContain('done');
  });

  test('sleeps between the rounds of its events while it waits asleep, and not after', async () => {
    let rounds = 0;
    let waiting = true;
    const count = () => {
      rounds++;
      if (waiting) setImmediate(count);
    };
    setImmediate(count);
    const start = performance.now();
    const news = await asleep(new Promise(resolve => setTimeout(resolve, 20, 'news')));
    waiting = false;
    expect(news).toBe('news');
    // A nap takes 0.05 ms at least, a round without one about a thousandth of that.
    expect(rounds).toBeLessThanOrEqual((performance.now() - start) / 0.05 + 2);
    for (let round = 0; round < 2; round++) await new Promise(resolve => setImmediate(resolve));
    expect(process.getActiveResourcesInfo()).not.toContain('Immediate');
  });

  onDevice('is told why there is no adapter', async () => {
    const ask = `${load}
      await createWebGPU().then(() => console.log('an adapter'), error => console.log(error.code, error.message));`;
    const noDriver = { VK_DRIVER_FILES: '/nonexistent.json', VK_ICD_FILENAMES: '/nonexistent.json' };
    expect(run(ask, noDriver)).toMatch(/^ERR_NO_ADAPTER .*no adapter/);
  });
});
