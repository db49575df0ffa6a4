import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkOp, passed } from '../src/cli/check.js';
import { falsify } from '../src/cli/falsify.js';
import type { SelftestReport } from '../src/cli/selftest.js';
import type { Backend } from '../src/core/backend.js';
import { allOps } from '../src/core/op.js';
import { opened } from './backends.js';
import { cases } from './cases.js';

const backend = opened('webgpu');

/** A test on a device. Without one it fails in CI and says so elsewhere. */
function onDevice(name: string, body: (gpu: Backend) => Promise<void>): void {
  it(name, { timeout: 300_000 }, async context => {
    await body(backend('webgpu', context));
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

  onDevice('fails the selftest that names the falsified op, and it alone', async () => {
    const args = ['dist/src/cli/main.js', 'selftest', '--backend', 'all', '--json'];
    const { status, stdout } = spawnSync(process.execPath, args, {
      cwd: join(import.meta.dirname, '..'),
      encoding: 'utf8',
      env: { ...process.env, WEIGHTLOOM_PERTURB: 'webgpu:softmax' },
    });
    const reports: SelftestReport[] = JSON.parse(stdout);
    expect(reports.map(({ backend, failed }) => [backend, failed])).toEqual([
      ['ref', []],
      ['cpu', []],
      ['webgpu', ['softmax']],
    ]);
    expect(status).toBe(1);
  });

  onDevice('is seen to fail where a kernel is falsified, op by op', async gpu => {
    const ops = ['add', 'sum', 'matmul', 'softmax', 'conv2d', 'maxPool', 'take', 'argmax', 'concat', 'cast'];
    for (const op of ops) expect(passed(await checkOp(op, falsify(gpu, op))), op).toBe(false);
  });
});
