/** What `bench` needs of the WebGPU backend: the kernel that measures the device, and the device's own clock. */
import { describe, expect } from 'vitest';
import type { DeviceClock } from '../src/backends/webgpu/timer.js';
import { KernelFailure } from '../src/core/backend.js';
import { BackendError } from '../src/core/errors.js';
import { command, gpu, newStorage, onDevice, useDevice, viewOf } from './webgpu-support.js';

useDevice();

const COUNT = 8192;
const vectors = () => {
  const [x, y] = [newStorage(gpu, 'f32', COUNT), newStorage(gpu, 'f32', COUNT)];
  gpu.write(
    x,
    Float32Array.from({ length: COUNT }, (_, i) => (i % 7) / 8),
  );
  return { x: viewOf(x, [COUNT]), y: viewOf(y, [COUNT]) };
};
const machine = (mode: string, repeats: number) => {
  const { x, y } = vectors();
  gpu.run([command('machine', [y], [x], { mode, repeats, pieces: 1 })]);
  return gpu.read(y);
};
const clock = () => gpu as typeof gpu & DeviceClock;

describe('the kernel machine', () => {
  onDevice('copies, writes and reads every element', async () => {
    expect(Array.from(await machine('copy', 3))).toEqual(
      Array.from({ length: COUNT }, (_, i) => (i % 7) / 8),
    );
    expect(new Set(await machine('write', 2))).toEqual(new Set([1]));
    // 64 elements a thread, 128 apart.
    const sums = Array.from({ length: 128 }, (_, i) =>
      Array.from({ length: 64 }, (_, r) => ((i + 128 * r) % 7) / 8).reduce((a, b) => a + b),
    );
    expect(Array.from((await machine('read', 1)).subarray(0, 128))).toEqual(sums);
  });

  onDevice('goes through as many multiply-adds as it is asked for', async () => {
    const expected = (x: number, repeats: number) => {
      let sum = 0;
      for (let start = 0; start < 8; start++) {
        let a = x * 0.999 + start;
        for (let r = 0; r < repeats; r++) a = a * x * 0.999 + 0.001;
        sum += 4 * a;
      }
      return sum;
    };
    for (const repeats of [1, 5]) {
      const values = await machine('fma', repeats);
      for (let i = 0; i < 7; i++) expect(values[i]).toBeCloseTo(expected(i / 8, repeats), 3);
    }
  });

  onDevice('refuses another mode', async () => {
    expect(() => machine('sing', 1)).toThrow(KernelFailure);
    expect(() => machine('sing', 1)).toThrow(/there is no mode 'sing'/);
  });
});

describe("the device's clock", () => {
  onDevice('tells the time of kernels, none where none ran, and null beyond its room', async () => {
    const { x, y } = vectors();
    const copies = async (count: number) => {
      for (let i = 0; i < count; i++) gpu.run([command('copy', [y], [x])]);
      await gpu.sync();
    };
    expect(await clock().timed(() => copies(0))).toBe(0);
    const one = await clock().timed(() => copies(1));
    expect(one).toBeGreaterThan(0);
    expect(one).toBeLessThan(1000);
    expect(await clock().timed(() => copies(2048))).toBeGreaterThan(0);
    expect(await clock().timed(() => copies(2049))).toBeNull();
  });

  onDevice('runs one measurement at a time, and another after one that failed', async () => {
    const failing = clock().timed(async () => {
      await expect(clock().timed(async () => {})).rejects.toThrow(BackendError);
      throw new RangeError('no');
    });
    await expect(failing).rejects.toThrow(RangeError);
    expect(await clock().timed(async () => {})).toBe(0);
  });
});
