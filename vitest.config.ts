import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';

/**
 * Test files that open a WebGPU device, found by the backend's name in their text. They run one at a time: software
 * adapters use every core, and some drivers allow few devices.
 */
const gpuTests = readdirSync(join(import.meta.dirname, 'tests'), { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.test.ts'))
  .map(name => join('tests', name))
  .filter(file =>
    /'webgpu'|'\.\.\/src\/backends\/webgpu\//.test(readFileSync(join(import.meta.dirname, file), 'utf8')),
  );

const project = (test: TestProjectInlineConfiguration['test']): TestProjectInlineConfiguration => ({
  test: {
    pool: 'forks',
    execArgv: ['--expose-gc'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Kernels as everybody has them, not as tuning left them here.
    env: { WEIGHTLOOM_CACHE: '' },
    ...test,
  },
});

export default defineConfig({
  test: {
    globalSetup: './scripts/setup-tests.mjs',
    projects: [
      project({
        name: 'host',
        include: ['tests/**/*.test.ts'],
        exclude: ['node_modules', ...gpuTests],
        // Vitest would leave one core idle, which on two is half of them.
        maxWorkers: availableParallelism(),
        sequence: { groupOrder: 0 },
      }),
      project({ name: 'gpu', include: gpuTests, maxWorkers: 1, sequence: { groupOrder: 1 } }),
    ],
  },
});
