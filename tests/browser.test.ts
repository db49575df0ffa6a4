/** The library in headless Chromium, on 'webgpu' by its own software adapter: every op, and a training run. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { findChromium, findSwiftShader } from '../scripts/chromium.mjs';
import { open, use } from '../src/index.js';
import type * as Page from './browser-page.js';
import { bundle, Visit } from './browser-support.js';
import { cases } from './cases.js';
import { sinusoidRun } from './sinusoid-run.js';

const STEPS = 200;

describe.skipIf(!findChromium() && !process.env.CI)('in Chromium', () => {
  let visit: Visit;
  beforeAll(async () => {
    const body = await bundle(`export * from './browser-page.ts';`, 'iife');
    visit = await Visit.to({
      '/': {
        type: 'text/html',
        body: '<!doctype html><link rel="icon" href="data:,"><script src="page.js"></script>',
      },
      '/page.js': { type: 'text/javascript', body },
    });
  });
  afterAll(() => visit?.end());

  /** Calls a function of the page's bundle, which is a global there that the types of this side do not know. */
  const call = <K extends keyof typeof Page>(name: K, ...args: Parameters<(typeof Page)[K]>) =>
    visit.page.evaluate(([name, args]) => (globalThis as any).page[name](...args), [
      name,
      args,
    ] as const) as ReturnType<(typeof Page)[K]>;

  test('opens the adapter it was started with', async () => {
    expect(await call('describe')).toMatchObject({ architecture: 'swiftshader', software: true });
  });

  test('has no native backend, and chooses none of software', async () => {
    expect(await call('choices')).toEqual({ cpu: 'ERR_NATIVE_LOAD', auto: 'ref' });
  });

  test('every op is right, with its first and second derivatives', async () => {
    expect(await call('selftest')).toEqual({ passed: Object.keys(cases).length, failed: [] });
  }, 300_000);

  test(`${STEPS} steps of training have the losses of Node`, async () => {
    const there = await call('train', STEPS);
    const backend = await open('cpu');
    use(backend);
    const here = await sinusoidRun(STEPS);
    backend.dispose();
    expect(there.losses).toHaveLength(STEPS);
    const off = here.losses.map((loss, i) => Math.abs(there.losses[i] - loss) / loss);
    expect(off[0]).toBeLessThan(1e-5);
    expect(Math.max(...off)).toBeLessThan(1e-4);
    expect(here.losses[STEPS - 1]).toBeLessThan(0.7 * here.losses[0]);
  }, 300_000);

  test('nothing was complained about', () => {
    expect(visit.complaints).toEqual([]);
  });
});

test.skipIf(!findSwiftShader() && !process.env.CI)(
  'every op is right in Node too on the adapter of the browser',
  () => {
    const out = execFileSync(
      process.execPath,
      ['dist/src/cli/main.js', 'selftest', '--backend', 'webgpu', '--json'],
      {
        cwd: join(import.meta.dirname, '..'),
        encoding: 'utf8',
        env: { ...process.env, VK_DRIVER_FILES: findSwiftShader()! },
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    expect(JSON.parse(out)).toMatchObject({ passed: Object.keys(cases).length, failed: [] });
  },
  300_000,
);
