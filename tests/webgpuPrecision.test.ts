/** The tiers of `precision`: their arithmetic by emulation, their shaders on Dawn's null backend, their refusals. */
import { afterAll, describe, expect, test } from 'vitest';
import { exact, relativeError, SCALES } from '../bench/precision.mjs';
import { open } from '../src/backends/init.js';
import { createOn } from '../src/backends/webgpu/backend.js';
import { createWebGPU, findGpu } from '../src/backends/webgpu/index.js';
import { tierOf } from '../src/backends/webgpu/matrices.js';
import { whole } from '../src/backends/webgpu/training.js';
import type { Attrs, Backend, Expr } from '../src/core/backend.js';
import { ArgumentError, DeviceLimitError } from '../src/core/errors.js';
import {
  command,
  type Dense,
  gpu,
  onDevice,
  product,
  target,
  uniform,
  upload,
  useDevice,
  viewOf,
} from './webgpu-support.js';

useDevice();

const opened: Backend[] = [];
afterAll(() => {
  for (const backend of opened) backend.dispose();
});
const emulated = async (precision: 'high' | 'medium'): Promise<Backend> => {
  const backend = await createWebGPU({ precision, emulated: true });
  opened.push(backend);
  return backend;
};

/** Normal values of standard deviation `scale`, as f32. */
function normal(shape: readonly number[], scale: number, seed: number): Dense {
  const random = uniform(seed);
  const value = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return { shape, data: Array.from({ length: product(shape) }, () => Math.fround(value() * scale)) };
}

async function multiplied(backend: Backend, a: Dense, b: Dense): Promise<Float32Array> {
  const y = target(backend, [...a.shape.slice(0, -1), b.shape.at(-1)!]);
  backend.run([command('matmul', [y], [upload(backend, a), upload(backend, b)])]);
  return (await backend.read(y)) as Float32Array;
}

/** Rounded to the nearest f16 of unbounded exponent below 2^16, ties to even, as f64. */
function f16(x: number): number {
  if (x === 0) return 0;
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(x)))) - 10);
  const scaled = x / step;
  const down = Math.floor(scaled);
  const rest = scaled - down;
  return (rest > 0.5 || (rest === 0.5 && down % 2 !== 0) ? down + 1 : down) * step;
}

/** A dot product as precision 'high' defines it: scaled, split into two parts, three products summed in f32. */
function splitDot(a: readonly number[], b: readonly number[]): number {
  const parts = (x: readonly number[]) => {
    const exponent = Math.floor(Math.log2(Math.max(...x.map(Math.abs)))) - 14;
    const first = x.map(v => f16(v / 2 ** exponent));
    return { exponent, first, rest: x.map((v, i) => f16((v / 2 ** exponent - first[i]) * 2048)) };
  };
  const [p, q] = [parts(a), parts(b)];
  let sum = 0;
  let rest = 0;
  for (let k = 0; k < a.length; k++) {
    sum = Math.fround(sum + p.first[k] * q.first[k]);
    rest = Math.fround(Math.fround(rest + p.first[k] * q.rest[k]) + p.rest[k] * q.first[k]);
  }
  return Math.fround(sum + rest / 2048) * 2 ** (p.exponent + q.exponent);
}

describe("precision 'high'", () => {
  test.each(SCALES)('as defined is at most twice as inexact as f32, on data times %f and %f', (s, t) => {
    const k = 512;
    const rows = Array.from({ length: 64 }, (_, i) => ({
      a: normal([1, k], s, i),
      b: normal([k, 1], t, i + 100),
    }));
    const wanted = rows.map(({ a, b }) => exact(a, b)[0]);
    const plain = rows.map(({ a, b }) => a.data.reduce((y, x, i) => Math.fround(y + x * b.data[i]), 0));
    const split = rows.map(({ a, b }) => splitDot(a.data, b.data));
    expect(relativeError(split, wanted)).toBeLessThanOrEqual(2 * relativeError(plain, wanted));
  });

  onDevice('on a device is at most twice as inexact as f32, at any scale', async () => {
    const backend = await emulated('high');
    for (const [s, t] of SCALES) {
      const [a, b] = [normal([193, 257], s, 1), normal([257, 200], t, 2)];
      const wanted = exact(a, b);
      const plain = relativeError(await multiplied(gpu, a, b), wanted);
      const split = relativeError(await multiplied(backend, a, b), wanted);
      expect(split, `${s} ${t}`).toBeLessThanOrEqual(2 * plain);
      expect(split).toBeGreaterThan(0);
    }
  });

  onDevice('keeps small rows beside large ones', async () => {
    const backend = await emulated('high');
    const a = normal([256, 256], 1, 3);
    for (let i = 0; i < 256; i++) for (let k = 0; k < 256; k++) a.data[i * 256 + k] *= 10 ** ((i % 31) - 15);
    for (let i = 0; i < a.data.length; i++) a.data[i] = Math.fround(a.data[i]);
    const b = normal([256, 256], 1, 4);
    const wanted = exact(a, b);
    const got = await multiplied(backend, a, b);
    for (let i = 0; i < 256; i += 17) {
      const row = (x: ArrayLike<number>) => Array.from({ length: 256 }, (_, j) => x[i * 256 + j]);
      expect(relativeError(row(got), row(wanted))).toBeLessThan(1e-6);
    }
  });
});

describe("precision 'medium'", () => {
  onDevice('rounds operands to f16 and sums in f32, at any scale', async () => {
    const backend = await emulated('medium');
    for (const [s, t] of SCALES) {
      const [a, b] = [normal([256, 320], s, 5), normal([320, 256], t, 6)];
      const error = relativeError(await multiplied(backend, a, b), exact(a, b));
      expect(error).toBeGreaterThan(5e-5);
      expect(error).toBeLessThan(5e-4);
    }
    const whole = (shape: readonly number[], seed: number) => {
      const random = uniform(seed);
      return { shape, data: Array.from({ length: product(shape) }, () => Math.floor(random() * 31) - 15) };
    };
    const [a, b] = [whole([224, 224], 7), whole([224, 224], 8)];
    expect([...(await multiplied(backend, a, b))]).toEqual(exact(a, b));
  });

  onDevice('serves batches, strides, epilogues, long sums and every edge of a tile', async () => {
    const backend = await emulated('medium');
    const random = uniform(9);
    const relu: Expr = {
      inputs: 2,
      immediates: [],
      code: [
        { scalar: { name: 'add', arity: 2, f: (x, y) => x + y, wgsl: 'a + b' }, args: [0, 1] },
        { scalar: { name: 'relu', arity: 1, f: x => Math.max(x, 0), wgsl: 'math_max(a, 0.0)' }, args: [2] },
      ],
      outs: [3],
    };
    for (const [batch, m, k, n] of [
      [1, 191, 193, 257],
      [3, 197, 200, 193],
      [2, 256, 240, 208],
      [1, 129, 4096, 131],
    ]) {
      const [a, b] = [normal([batch, m, k], 1, m), normal([batch, k, n], 1, n)];
      const bias = normal([batch, m, n], 1, k);
      const wanted = exact(a, b).map((x, i) => Math.max(0, x + bias.data[i]));
      const y = target(backend, [batch, m, n], 'f32', random);
      const ins = [a, b, bias].map(x => upload(backend, x, 'f32', random));
      backend.run([command('matmul', [y], ins, { epilogue: relu } as Attrs)]);
      expect(relativeError((await backend.read(y)) as Float32Array, wanted)).toBeLessThan(5e-4);
      const untouched = Array.from(await backend.read(viewOf(y.storage, [y.storage.size])));
      expect(untouched.filter(x => x === 77).length).toBeGreaterThanOrEqual(y.storage.size - batch * m * n);
    }
  });
});

describe('convolutions', () => {
  onDevice('and their adjoints run in matrices too', async () => {
    const backend = await emulated('high');
    const x = normal([1, 2, 16, 16, 128], 1, 11);
    const w = normal([1, 3, 3, 128, 128], 1, 12);
    const g = normal([1, 2, 16, 16, 128], 1, 13);
    const attrs = { stride: [1, 1], pad: [1, 1] };
    for (const [kernel, shape, ins] of [
      ['conv2d', g.shape, [x, w]],
      ['conv2dInput', x.shape, [g, w]],
      ['conv2dFilter', w.shape, [x, g]],
    ] as const) {
      const results = [];
      for (const on of [gpu, backend]) {
        const before = (on.describe().counters as { dispatches: number }).dispatches;
        const y = target(on, shape);
        on.run([
          command(
            kernel,
            [y],
            ins.map(each => upload(on, each)),
            attrs,
          ),
        ]);
        const values = [...(await on.read(y))];
        results.push({
          values,
          dispatches: (on.describe().counters as { dispatches: number }).dispatches - before,
        });
      }
      expect(results[1].dispatches).toBeGreaterThanOrEqual(3);
      expect(relativeError(results[1].values, results[0].values)).toBeLessThan(1e-6);
    }
  });
});

/** `target` with some of its members replaced; functions keep their own `this`. */
const patched = <T extends object>(target: T, own: Record<string, unknown>): T =>
  new Proxy(target, {
    get: (_, name: string) => {
      if (name in own) return own[name];
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

describe('subgroup matrices', () => {
  test.each(['high', 'medium'] as const)("shaders of '%s' are valid", async precision => {
    const nothing = await findGpu([
      'backend=null',
      'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia',
    ]);
    const modules: { code: string; module: GPUShaderModule }[] = [];
    const config = { componentType: 'f16', resultComponentType: 'f32', M: 16, N: 16, K: 16 };
    const like = patched(nothing, {
      requestAdapter: async () => {
        const adapter = (await nothing.requestAdapter())!;
        return patched(adapter, {
          info: patched(adapter.info, {
            subgroupMinSize: 32,
            subgroupMaxSize: 32,
            subgroupMatrixConfigs: [config],
          }),
          requestDevice: async (descriptor: GPUDeviceDescriptor) => {
            const device = await adapter.requestDevice(descriptor);
            return patched(device, {
              createShaderModule: (given: GPUShaderModuleDescriptor) => {
                const module = device.createShaderModule(given);
                modules.push({ code: given.code, module });
                return module;
              },
            });
          },
        });
      },
    });
    const backend = await createOn(
      like,
      { precision },
      { ...whole, tierOf: adapter => tierOf(adapter, precision) },
    );
    expect(backend.describe()).toMatchObject({ precision, matrices: '16x16x16' });
    for (const size of [256, 2048]) {
      const x = { ...viewOf(storageOf(backend, size), [size, size]) };
      backend.run([command('matmul', [viewOf(storageOf(backend, size), [size, size])], [x, x])]);
    }
    const messages = await Promise.all(modules.map(({ module }) => module.getCompilationInfo()));
    expect(messages.flatMap(info => info.messages.map(({ type, message }) => `${type} ${message}`))).toEqual(
      [],
    );
    expect(modules.filter(({ code }) => code.includes('subgroupMatrixMultiplyAccumulate'))).toHaveLength(2);
    // A device of the null backend has no shapes of matrices: the pipelines fail, and nobody needs them.
    await backend.sync().catch(() => {});
    backend.dispose();
  });
});

function storageOf(backend: Backend, side: number) {
  const storage = upload(backend, { shape: [1], data: [0] }).storage;
  backend.free(storage);
  const whole = { ...storage, size: side * side, memory: null };
  backend.write(whole, new Float32Array(side * side));
  return whole;
}

describe('refusals', () => {
  test.each(['high', 'medium'] as const)(
    "a backend that has only f32 does not take '%s'",
    async precision => {
      await expect(open('cpu', { precision })).rejects.toThrow(DeviceLimitError);
      await expect(open('ref', { precision })).rejects.toThrow(/backend 'ref' has 'highest' alone/);
    },
  );

  test('a precision that is none', async () => {
    const precision = 'low' as 'high';
    await expect(open('ref', { precision })).rejects.toThrow(ArgumentError);
  });

  onDevice('an adapter without subgroup matrices names what it lacks', async () => {
    const features = gpu.describe().features as string[];
    expect(gpu.describe().precision).toBe('highest');
    if (features.includes('chromium-experimental-subgroup-matrix')) return;
    const error = await createWebGPU({ precision: 'high' }).catch((reason: unknown) => reason);
    if (!(error instanceof DeviceLimitError)) {
      (error as Backend).dispose();
      expect((error as Backend).describe().precision).toBe('high');
    } else expect(error.message).toMatch(/precision 'high' cannot be had here: .*; ask for 'highest'/);
  });

  onDevice('a build without the tiers', async () => {
    await expect(createOn(await findGpu(), { precision: 'high' }, whole)).rejects.toThrow(
      /expected 'highest'/,
    );
  });
});
