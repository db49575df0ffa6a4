/**
 * `npm test [-- vitest arguments]`: makes sure of a Vulkan driver and of Chromium, builds what is stale, runs vitest, and ends with
 * `N passed, N failed` alone on the last line. With CI set nothing may be left out: a skipped test, a stale build, a
 * missing WebGPU adapter and a missing browser are failures.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './build.mjs';
import { ensureChromium, findSwiftShader } from './chromium.mjs';
import { ensureVulkan } from './vulkan.mjs';

const REPORT = join(root, 'build/test-report.json');

/**
 * Counts of a vitest JSON report. A file that fails to load counts as one failed test, as does a run that went wrong
 * in another way; in CI so does a skipped test.
 */
export function tally(report, exitCode, ci) {
  let failed = report.numFailedTests;
  for (const file of report.testResults) {
    if (file.status === 'failed' && !file.assertionResults.some(test => test.status === 'failed')) failed++;
  }
  if (ci) failed += report.numPendingTests + report.numTodoTests;
  if (exitCode !== 0 && failed === 0) failed = 1;
  return { passed: report.numPassedTests, failed };
}

/** Runs vitest with `args` and returns its tally. */
function runTests(args) {
  const { adapter, env, reason } = ensureVulkan();
  console.error(adapter ? `WebGPU adapter: ${adapter}` : reason);
  const chromium = ensureChromium();
  console.error(chromium.path ? `Chromium: ${chromium.path}` : chromium.reason);
  // SwiftShader compiles shaders faster than lavapipe, and fuzzing compiles more than it runs.
  const fuzzDriver = /llvmpipe/.test(adapter ?? '') ? findSwiftShader() : null;
  if (fuzzDriver) console.error(`Kernels are fuzzed on SwiftShader: ${fuzzDriver}`);
  rmSync(REPORT, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${REPORT}`];
  const { status } = spawnSync(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', ...reporters, ...args],
    {
      cwd: root,
      env: { ...process.env, ...env, ...(fuzzDriver && { WEIGHTLOOM_FUZZ_DRIVER: fuzzDriver }) },
      stdio: ['ignore', 'inherit', 'inherit'],
    },
  );
  if (!existsSync(REPORT)) return { passed: 0, failed: 1 };
  const ci = Boolean(process.env.CI);
  const counts = tally(JSON.parse(readFileSync(REPORT, 'utf8')), status, ci);
  const missing = ci ? [adapter, chromium.path].filter(found => found === null).length : 0;
  return { ...counts, failed: counts.failed + missing };
}

if (process.argv[1] === import.meta.filename) {
  const { passed, failed } = runTests(process.argv.slice(2));
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 ? 0 : 1;
}
