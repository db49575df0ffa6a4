/** A device, storages, strided views and dense arrays for tests that talk to the WebGPU backend directly. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createWebGPU, type WebGPUOptions } from '../src/backends/webgpu/index.js';
import type { Tunable } from '../src/backends/webgpu/tiling.js';
import type { Attrs, Backend, Command, DType, KernelFailure, Storage, View } from '../src/core/backend.js';
import { DeviceLimitError } from '../src/core/errors.js';

/** A dense array in row-major order. */
export interface Dense {
  readonly shape: readonly number[];
  readonly data: number[];
}

export const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

export function rowMajor(shape: readonly number[]): number[] {
  const strides: number[] = [];
  let stride = 1;
  for (const n of [...shape].reverse()) {
    strides.unshift(stride);
    stride *= n;
  }
  return strides;
}

/** A deterministic stream of uniform numbers in [0, 1) (mulberry32). */
export function uniform(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Values in [-1, 1), as f32. */
export const dense = (shape: readonly number[], random: () => number): Dense => ({
  shape,
  data: Array.from({ length: product(shape) }, () => Math.fround(random() * 2 - 1)),
});

/** Calls `visit` with every index of `shape`, in row-major order. */
export function each(shape: readonly number[], visit: (index: number[], flat: number) => void): void {
  const index = shape.map(() => 0);
  for (let flat = 0; flat < product(shape); flat++) {
    visit(index, flat);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
}

/** The element of a dense array. */
export const at = ({ shape, data }: Dense, ...index: number[]): number =>
  data[index.reduce((flat, i, axis) => flat * shape[axis] + i, 0)];

let nextStorage = 0;

export function newStorage(backend: Backend, dtype: DType, size: number): Storage {
  return { id: nextStorage++, dtype, size, backend, memory: null, generation: 0, dead: null };
}

export const viewOf = (
  storage: Storage,
  shape: readonly number[],
  strides: readonly number[] = rowMajor(shape),
  offset = 0,
): View => ({ storage, shape, strides, offset, generation: 0 });

/** Axes in a random order in memory, with gaps between them, somewhere inside a larger storage. */
function scatteredLayout(shape: readonly number[], random: () => number) {
  const order = shape.map((_, axis) => axis).sort(() => random() - 0.5);
  const strides = shape.map(() => 1);
  let stride = random() < 0.3 ? 2 : 1;
  for (const axis of order) {
    strides[axis] = stride;
    stride *= shape[axis] + (random() < 0.3 ? 1 : 0);
  }
  const offset = random() < 0.5 ? 0 : Math.floor(random() * 7);
  return { strides, offset, size: stride + offset };
}

const ARRAYS = { f32: Float32Array, i32: Int32Array, u32: Uint32Array };
const UNTOUCHED = 77;

/** A view with these values. With `random` its layout is scattered. */
export function upload(
  backend: Backend,
  { shape, data }: Dense,
  dtype: DType = 'f32',
  random?: () => number,
): View {
  const layout = random
    ? scatteredLayout(shape, random)
    : { strides: rowMajor(shape), offset: 0, size: product(shape) };
  const storage = newStorage(backend, dtype, layout.size);
  const words = new ARRAYS[dtype](layout.size).fill(UNTOUCHED);
  each(shape, (index, flat) => {
    words[layout.offset + index.reduce((sum, i, axis) => sum + i * layout.strides[axis], 0)] = data[flat];
  });
  backend.write(storage, words);
  return viewOf(storage, shape, layout.strides, layout.offset);
}

/** A window to be written, in a storage whose other elements `downloadWindow` checks. */
export const target = (
  backend: Backend,
  shape: readonly number[],
  dtype: DType = 'f32',
  random?: () => number,
): View => upload(backend, { shape, data: new Array(product(shape)).fill(UNTOUCHED) }, dtype, random);

/** The values of a view, and whether the rest of its storage is as `target` made it. */
export async function downloadWindow(
  backend: Backend,
  view: View,
): Promise<{ data: number[]; clean: boolean }> {
  const data = [...(await backend.read(view))];
  const whole = [...(await backend.read(viewOf(view.storage, [view.storage.size])))];
  each(view.shape, index => {
    whole[view.offset + index.reduce((sum, i, axis) => sum + i * view.strides[axis], 0)] = UNTOUCHED;
  });
  return { data, clean: whole.every(value => value === UNTOUCHED) };
}

export const command = (
  kernel: string,
  outs: readonly View[],
  ins: readonly View[],
  attrs: Attrs = {},
): Command => ({ kernel, op: kernel, outs, ins, attrs });

/** The first difference beyond `tolerance` (of 1 + the expected size), in words, or null. NaN equals NaN. */
export function difference(
  got: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: number,
): string | null {
  if (got.length !== expected.length) return `${got.length} values for ${expected.length}`;
  for (let i = 0; i < expected.length; i++) {
    if (Object.is(got[i], expected[i]) || got[i] === expected[i]) continue;
    const bound = tolerance * (1 + Math.abs(expected[i]));
    if (!(Math.abs(got[i] - expected[i]) <= bound)) return `[${i}]: ${got[i]} for ${expected[i]}`;
  }
  return null;
}

/**
 * A GPU whose devices have no room for buffers of more than `most` bytes. Such a buffer is as unusable as a real one, and
 * the error is told through the same scopes.
 */
export function cramped(real: GPU, most: number): GPU {
  const bound = <T extends object>(target: T, own: Partial<T>): T =>
    new Proxy(target, {
      get: (_, name) => {
        const value = Reflect.get(name in own ? own : target, name);
        return typeof value === 'function' && !(name in own) ? value.bind(target) : value;
      },
    });
  class GPUOutOfMemoryError {
    readonly message = 'no room';
  }
  const scopes: (GPUOutOfMemoryError | null)[] = [];
  const device = (target: GPUDevice) =>
    bound(target, {
      createBuffer: descriptor => {
        if (descriptor.size <= most) return target.createBuffer(descriptor);
        scopes[scopes.length - 1] = new GPUOutOfMemoryError();
        const dead = target.createBuffer({ ...descriptor, size: 4 });
        dead.destroy();
        return dead;
      },
      pushErrorScope: kind => {
        scopes.push(null);
        target.pushErrorScope(kind);
      },
      popErrorScope: () => {
        const mine = scopes.pop()!;
        return target.popErrorScope().then(error => mine ?? error);
      },
    });
  return bound(real, {
    requestAdapter: async options => {
      const adapter = (await real.requestAdapter(options))!;
      return bound(adapter, {
        requestDevice: async descriptor => device(await adapter.requestDevice(descriptor)),
      });
    },
  });
}

/** Opened by `useDevice`. */
export let gpu: Backend;
let missing = '';

/**
 * Opens the device of a test file or block. Where there is none, this fails in CI, and elsewhere `onDevice` skips. An
 * error of the device that no test has met fails the file.
 */
export function useDevice(options?: WebGPUOptions): void {
  beforeAll(async () => {
    try {
      gpu = await createWebGPU(options);
    } catch (error) {
      if (process.env.CI) throw error;
      missing = String(error);
    }
  });
  afterAll(async () => {
    await gpu?.sync();
    gpu?.dispose();
  });
}

/** The tests of `body` twice: with the kernels that software adapters get, and with those that GPUs get. */
export function onBothTiers(body: () => void): void {
  for (const software of [true, false])
    describe(`kernels for ${software ? 'software adapters' : 'GPUs'}`, () => {
      useDevice({ software });
      body();
    });
}

/** A test that needs the device. */
export function onDevice(name: string, body: () => Promise<void>): void {
  test(name, async context => {
    if (missing) return context.skip(missing);
    await body();
  });
}

export interface Given extends Dense {
  readonly dtype?: DType;
}
export interface Wanted extends Given {
  readonly tolerance?: number;
}
export interface Case {
  readonly ins: readonly Given[];
  readonly outs: readonly Wanted[];
  readonly attrs?: Attrs;
  /** Operands that the kernel's contract promises dense. */
  readonly denseIns?: readonly number[];
  readonly denseOuts?: boolean;
}

/**
 * Runs a command on a device that has as little as can be of one thing: workgroups in a dimension, so that its dispatches
 * are folded, or bytes in a binding, so that it is run in ranges.
 */
export function runWithLeast(
  limit: 'maxComputeWorkgroupsPerDimension' | 'maxStorageBufferBindingSize',
  example: Command,
): void {
  const { device, retile } = gpu as Backend & Tunable;
  const forget = () => retile.call(gpu, '', null);
  const most = device.limits[limit];
  const bytes = Math.max(...[...example.outs, ...example.ins].map(({ storage }) => storage.size * 4));
  const least = limit === 'maxStorageBufferBindingSize' ? 256 * Math.ceil(bytes / 512 + 1) : 2;
  for (let few = least; ; few *= 2) {
    forget();
    device.limits[limit] = few;
    try {
      gpu.run([example]);
      return;
    } catch (failure) {
      if (!((failure as KernelFailure).cause instanceof DeviceLimitError) || few >= most) throw failure;
    } finally {
      device.limits[limit] = most;
      forget();
    }
  }
}

/** Runs a kernel, folded every other time unless `ranged` has it run in ranges then, with scattered operands and compares its windows, and what surrounds them, with what is wanted. */
export async function check(
  kernel: string,
  random: () => number,
  example: Case,
  ranged = false,
): Promise<void> {
  const ins = example.ins.map((x, i) =>
    upload(gpu, x, x.dtype, example.denseIns?.includes(i) ? undefined : random),
  );
  const outs = example.outs.map(y => target(gpu, y.shape, y.dtype, example.denseOuts ? undefined : random));
  const asked = command(kernel, outs, ins, example.attrs);
  if (random() < 0.5) gpu.run([asked]);
  else runWithLeast(ranged ? 'maxStorageBufferBindingSize' : 'maxComputeWorkgroupsPerDimension', asked);
  for (const [i, wanted] of example.outs.entries()) {
    const got = await downloadWindow(gpu, outs[i]);
    const found = difference(got.data, wanted.data, wanted.tolerance ?? 0);
    const shapes = `${example.ins.map(x => `[${x.shape}]`).join(' ')} -> [${wanted.shape}]`;
    expect(found, `${kernel} ${JSON.stringify(example.attrs ?? {})} ${shapes}`).toBeNull();
    expect(got.clean, `${kernel} wrote outside its window`).toBe(true);
  }
  for (const view of [...ins, ...outs]) gpu.free(view.storage);
}

/** Checks a kernel on fuzzed examples. Layouts are compiled into shaders, so runs are few. */
export function fuzz<T>(
  name: string,
  arbitrary: fc.Arbitrary<T>,
  body: (value: T, random: () => number) => Promise<void>,
  numRuns = 12,
) {
  onDevice(name, () =>
    fc.assert(
      fc.asyncProperty(arbitrary, fc.integer(), (value, seed) => body(value, uniform(seed))),
      { numRuns, seed: 1, endOnFailure: true },
    ),
  );
}

/** Shapes of up to `maxRank` axes, some of them empty. */
export const shape = (maxRank: number, maxSize = 6) =>
  fc.array(fc.oneof({ weight: 8, arbitrary: fc.integer({ min: 1, max: maxSize }) }, fc.constant(0)), {
    maxLength: maxRank,
  });
/** 1 .. max. */
export const upTo = (max: number) => fc.integer({ min: 1, max });
/** A dense array from a function of the index. */
export const filled = (sizes: readonly number[], value: (index: number[]) => number): Dense => {
  const data: number[] = [];
  each(sizes, index => data.push(value(index)));
  return { shape: sizes, data };
};
/** term(0) + ... + term(n - 1) */
export const sum = (n: number, term: (i: number) => number): number => {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
};
