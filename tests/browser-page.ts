/** What the tests run inside a page, bundled by esbuild from the sources. */
import { init, sync } from '../src/browser.js';
import { checkOp, type OpReport, passed } from '../src/cli/check.js';
import { cases } from './cases.js';
import { type Run, sinusoidRun } from './sinusoid-run.js';

/** The backend's own account of itself. */
export const describe = async (): Promise<Record<string, unknown>> =>
  (await init({ backend: 'webgpu' })).describe();

/** The reports of the ops that failed, and how many passed. */
export async function selftest(): Promise<{ passed: number; failed: OpReport[] }> {
  const backend = await init({ backend: 'webgpu' });
  const failed: OpReport[] = [];
  for (const name of Object.keys(cases)) {
    const report = await checkOp(name, backend);
    if (!passed(report)) failed.push(report);
  }
  await sync();
  backend.dispose();
  return { passed: Object.keys(cases).length - failed.length, failed };
}

/** `sinusoidRun` on WebGPU. */
export async function train(steps: number): Promise<Run> {
  const backend = await init({ backend: 'webgpu' });
  const run = await sinusoidRun(steps);
  await sync();
  backend.dispose();
  return run;
}

/** Why the native backend cannot be had, and what 'auto' is where no adapter is a GPU. */
export async function choices(): Promise<{ cpu: string; auto: string }> {
  const cpu = await init({ backend: 'cpu' }).then(
    () => 'opened',
    error => error.code,
  );
  return { cpu, auto: (await init()).name };
}
