import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { checkOp, passed } from '../src/cli/check.js';
import type { Backend } from '../src/core/backend.js';
import { allOps } from '../src/core/op.js';
import { runtime } from '../src/core/queue.js';
import { cases } from './cases.js';

let gpu: Backend | undefined;
let missing = '';
beforeAll(async () => {
  try {
    gpu = await open('webgpu');
  } catch (error) {
    if (process.env.CI) throw error;
    missing = String(error);
  }
});
afterAll(() => gpu?.dispose());

/** A test on a device. Without one it fails in CI and says so elsewhere. */
function onDevice(name: string, body: (gpu: Backend) => Promise<void>): void {
  it(name, async context => {
    if (!gpu) return context.skip(missing);
    await body(gpu);
  });
}

describe('webgpu against float64', () => {
  for (const name of Object.keys(cases))
    onDevice(name, async gpu => {
      const report = await checkOp(name, gpu);
      expect(passed(report), JSON.stringify(report)).toBe(true);
    });
});

describe('webgpu', () => {
  onDevice('has a kernel for every op', async gpu => {
    const kernels = allOps().flatMap(({ name, ref }) => (ref ? [name] : []));
    expect(kernels.length).toBeGreaterThan(20);
    expect(kernels.filter(kernel => !gpu.has(kernel))).toEqual([]);
  });

  onDevice('is seen to fail where a kernel is falsified, op by op', async gpu => {
    try {
      for (const op of [
        'add',
        'sum',
        'matmul',
        'softmax',
        'conv2d',
        'maxPool',
        'take',
        'argmax',
        'concat',
        'cast',
      ]) {
        runtime.perturb = { backend: 'webgpu', op };
        expect(passed(await checkOp(op, gpu)), op).toBe(false);
        runtime.perturb = { backend: 'cpu', op };
        expect(passed(await checkOp(op, gpu)), op).toBe(true);
      }
    } finally {
      runtime.perturb = null;
    }
  });
});
