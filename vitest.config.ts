import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { defineConfig, type TestProjectInlineConfiguration } from 'vitest/config';

/**
 * Test files that open a WebGPU device, found by what they import and name. They run two at a time: software adapters
 * use every core to compute, but one to compile, and some drivers allow few devices.
 */
const gpuTests = readdirSync(join(import.meta.dirname, 'tests'), { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.test.ts'))
  .map(name => join('tests', name))
  .filter(file =>
    /'webgpu'|'\.\.\/src\/backends\/webgpu\/|'\.\/webgpu-support\.js'/.test(
      readFileSync(join(import.meta.dirname, file), 'utf8'),
    ),
  );

/** Those of them whose every example is other shaders. */
const fuzzTests = ['webgpu', 'webgpu-windows', 'webgpuChains', 'webgpuEdges', 'webgpuPlans'].map(
  name => `tests/${name}.test.ts`,
);
/** The driver they run on where it is not the others': scripts/test.mjs finds one that compiles in less time. */
const fuzzDriver = process.env.WEIGHTLOOM_FUZZ_DRIVER;

const project = (test: TestProjectInlineConfiguration['test']): TestProjectInlineConfiguration => ({
  test: {
    pool: 'forks',
    execArgv: ['--expose-gc'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    ...test,
    // Kernels as everybody has them, not as tuning left them here.
    env: { WEIGHTLOOM_CACHE: '', ...test?.env },
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
      project({
        name: 'gpu',
        include: gpuTests,
        exclude: fuzzTests,
        maxWorkers: 2,
        sequence: { groupOrder: 1 },
      }),
      project({
        name: 'fuzz',
        include: fuzzTests,
        env: fuzzDriver ? { VK_DRIVER_FILES: fuzzDriver } : {},
        maxWorkers: 2,
        sequence: { groupOrder: 1 },
      }),
    ],
  },
});
