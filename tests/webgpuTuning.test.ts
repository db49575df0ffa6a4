/** Tuning of tiles: what is tried, what is admitted, where it is kept. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { open } from '../src/backends/init.js';
import { createWebGPU } from '../src/backends/webgpu/index.js';
import { type Tiling, type Tunable, tilingKey } from '../src/backends/webgpu/tiling.js';
import { fits, tuningFile, writeTunings } from '../src/backends/webgpu/tunings.js';
import { tune, tuneProduct } from '../src/cli/tune.js';
import type { Backend } from '../src/core/backend.js';
import { ArgumentError, DataError } from '../src/core/errors.js';
import { matmul, ones, use } from '../src/index.js';
import { command, dense, gpu, onDevice, target, uniform, upload, useDevice } from './webgpu-support.js';

useDevice({ software: true });
const tunable = () => gpu as Backend & Tunable;
const sizes = { batch: 1, m: 40, n: 24, k: 512, aByRows: true, bByRows: false };
const tiling: Tiling = { body: 'matmulDirect', rows: 2, columns: 2, threadsM: 1, threadsN: 8, parts: 4 };

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tunings-'));
  process.env.WEIGHTLOOM_CACHE = folder;
});
afterEach(() => {
  process.env.WEIGHTLOOM_CACHE = '';
  rmSync(folder, { recursive: true });
});

test('sizes share a key up to the next power of two', () => {
  expect(tilingKey(sizes)).toBe('1:64x512x32rc');
  expect(tilingKey({ ...sizes, m: 64, n: 17 })).toBe(tilingKey(sizes));
  expect(tilingKey({ ...sizes, m: 65 })).not.toBe(tilingKey(sizes));
});

onDevice('a tiling is used for its key, and its parts of k are summed', async () => {
  const random = uniform(1);
  const [a, b] = [dense([40, 512], random), dense([512, 24], random)];
  const dispatches = () => (gpu.describe().counters as { dispatches: number }).dispatches;
  const results: { dispatches: number; values: number[] }[] = [];
  for (const used of [null, tiling]) {
    tunable().retile(tilingKey({ ...sizes, bByRows: true }), used);
    const y = target(gpu, [40, 24]);
    const before = dispatches();
    gpu.run([command('matmul', [y], [upload(gpu, a), upload(gpu, b)])]);
    results.push({ dispatches: dispatches() - before, values: [...(await gpu.read(y))] });
  }
  tunable().retile(tilingKey({ ...sizes, bByRows: true }), null);
  expect(results.map(result => result.dispatches)).toEqual([1, 2]);
  results[0].values.forEach((x, i) => void expect(results[1].values[i]).toBeCloseTo(x, 3));
});

onDevice('search takes what is right and fast, and tells both times', async () => {
  const found = await tuneProduct(tunable(), sizes);
  expect(found.key).toBe(tilingKey(sizes));
  expect(found.after).toBeLessThanOrEqual(found.before);
  expect(tunable().tuning.tiles.get(found.key) ?? null).toEqual(found.tiling);
  tunable().retile(found.key, null);
});

onDevice('search admits no tiling whose results the reference does not confirm', async () => {
  const wrong = new Proxy(tunable(), {
    get: (real, name) => {
      if (name === 'read') return async () => new Float32Array(1 << 16);
      const value = Reflect.get(real, name);
      return typeof value === 'function' ? value.bind(real) : value;
    },
  });
  expect((await tuneProduct(wrong, sizes)).tiling).toBeNull();
});

onDevice('tuning finds the products of cases and keeps their tilings for the adapter', async () => {
  use(gpu);
  const [a, b] = [ones([12, 20]), ones([20, 9])];
  const step = () => matmul(a, b);
  const found: string[] = [];
  const file = await tune(gpu, [{ id: 'x', pass: 'fwd', inputs: () => [], step }], ({ key }) =>
    found.push(key),
  );
  expect(found).toEqual(['1:16x32x16rr']);
  expect(file).toBe(tuningFile(tunable().device));
  expect(JSON.parse(readFileSync(file!, 'utf8'))).toMatchObject({ format: 2 });
  await expect(tune(await open('ref'), [], () => {})).rejects.toThrow(ArgumentError);
});

onDevice('a device is opened with the tilings kept for it, and refuses a damaged file', async () => {
  const { device } = tunable();
  const file = writeTunings(device, new Map([['key', tiling]]))!;
  const again = (await createWebGPU({ software: true })) as Backend & Tunable;
  expect(again.tuning.tiles).toEqual(new Map([['key', tiling]]));
  expect(again.describe().tunings).toBe(1);
  again.dispose();
  for (const text of ['{', JSON.stringify({ format: 2, tiles: { key: { ...tiling, rows: 0.5 } } })]) {
    writeFileSync(file, text);
    await expect(createWebGPU({ software: true })).rejects.toThrow(DataError);
  }
  writeFileSync(file, JSON.stringify({ format: 0 }));
  (await createWebGPU({ software: true })).dispose();
  process.env.WEIGHTLOOM_CACHE = '';
  expect(writeTunings(device, new Map())).toBeNull();
});

onDevice('a tiling beyond the limits of a device does not fit it', async () => {
  const { device } = tunable();
  const large: Tiling = { body: 'matmulTiled', rows: 8, columns: 8, threadsM: 16, threadsN: 16, tileK: 8 };
  expect(fits(large, device)).toBe(true);
  expect(fits({ ...large, tileK: 1024 }, device)).toBe(false);
  expect(fits({ ...large, threadsM: 512 }, device)).toBe(false);
  expect(fits({ ...large, tileK: undefined }, device)).toBe(false);
  expect(fits({ ...large, body: 'other' as 'matmulTiled' }, device)).toBe(false);
});
