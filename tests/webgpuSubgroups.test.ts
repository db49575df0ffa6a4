/** Kernels that exchange values within subgroups: the same bits as without. */
import { afterAll, expect } from 'vitest';
import { createWebGPU } from '../src/backends/webgpu/index.js';
import type { Attrs, Backend } from '../src/core/backend.js';
import { command, dense, gpu, onDevice, target, uniform, upload, useDevice } from './webgpu-support.js';

useDevice({ software: false });
let plain: Backend | undefined;
afterAll(() => plain?.dispose());

onDevice('reductions and softmax give the same bits with subgroups and without', async () => {
  plain = await createWebGPU({ software: false, subgroups: false });
  expect(plain.describe().subgroup).toBe(0);
  const random = uniform(1);
  const kernels: [string, Attrs][] = [
    ...['sum', 'max', 'min'].map((fn): [string, Attrs] => ['reduce', { fn, reduced: 1 }]),
    ['softmax', {}],
    ['logSoftmax', {}],
  ];
  for (const [kernel, attrs] of kernels)
    for (const [rows, length] of [
      [1, 1],
      [3, 7],
      [5, 31],
      [2, 127],
      [3, 513],
      [1, 5003],
    ]) {
      const x = dense([rows, length], random);
      const results = [];
      for (const backend of [gpu, plain]) {
        const y = target(backend, kernel === 'reduce' ? [rows] : [rows, length]);
        backend.run([command(kernel, [y], [upload(backend, x)], attrs)]);
        results.push(await backend.read(y));
      }
      expect(results[0], `${kernel} ${JSON.stringify(attrs)} [${rows}, ${length}]`).toEqual(results[1]);
    }
});
