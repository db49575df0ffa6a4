import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { tally } from '../scripts/test.mjs';

const file = (...statuses: string[]) => ({
  status: statuses.includes('failed') ? 'failed' : 'passed',
  assertionResults: statuses.map(status => ({ status })),
});
const report = (passed: number, failed: number, skipped: number, testResults: ReturnType<typeof file>[]) => ({
  numPassedTests: passed,
  numFailedTests: failed,
  numPendingTests: skipped,
  numTodoTests: 0,
  testResults,
});

describe('tally', () => {
  it('counts tests', () => {
    const counted = report(2, 1, 0, [file('passed', 'passed'), file('failed')]);
    expect(tally(counted, 1, true)).toEqual({ passed: 2, failed: 1 });
  });

  it('counts a file that does not load as a failure', () => {
    const counted = report(1, 0, 0, [file('passed'), { status: 'failed', assertionResults: [] }]);
    expect(tally(counted, 1, false)).toEqual({ passed: 1, failed: 1 });
  });

  it('counts a skipped test as a failure in CI only', () => {
    const counted = report(1, 0, 2, [file('passed', 'pending', 'pending')]);
    expect(tally(counted, 0, false)).toEqual({ passed: 1, failed: 0 });
    expect(tally(counted, 0, true)).toEqual({ passed: 1, failed: 2 });
  });

  it('does not call a run good that ended badly', () => {
    expect(tally(report(1, 0, 0, [file('passed')]), 134, false)).toEqual({ passed: 1, failed: 1 });
  });
});

describe('.ci/run', () => {
  /** Runs it in an empty checkout where `npm` is a script; returns exit code and lines of stdout. */
  function ci(npm: string) {
    const folder = mkdtempSync(join(tmpdir(), 'weightloom-ci-'));
    try {
      mkdirSync(join(folder, 'build/Release'), { recursive: true });
      writeFileSync(join(folder, 'build/Release/weightloom.node'), '');
      cpSync(join(import.meta.dirname, '../.ci'), join(folder, '.ci'), { recursive: true });
      for (const tool of ['npm', 'c++', 'cmake', 'aarch64-linux-gnu-g++', 'qemu-aarch64']) {
        writeFileSync(join(folder, tool), `#!/bin/sh\n${tool === 'npm' ? npm : ''}\n`);
        chmodSync(join(folder, tool), 0o755);
      }
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` };
      const run = `.ci/run 2>/dev/null; echo "exit $?"`;
      return execFileSync('sh', ['-c', run], { cwd: folder, env, encoding: 'utf8' }).trim().split('\n');
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  const tested = (line: string, code = 0) =>
    `if [ "$1" = test ]; then echo noise; echo "${line}"; exit ${code}; fi`;

  it('ends with one tally of tests and phases', () => {
    expect(ci(tested('40 passed, 0 failed'))).toEqual(['noise', '45 passed, 0 failed', 'exit 0']);
  });

  it('fails with its tests', () => {
    expect(ci(tested('39 passed, 1 failed', 1)).slice(-2)).toEqual(['44 passed, 1 failed', 'exit 1']);
  });

  it('fails if the tests end without a tally', () => {
    expect(ci('if [ "$1" = test ]; then exit 7; fi').slice(-2)).toEqual(['5 passed, 1 failed', 'exit 1']);
  });

  it('fails if lint fails, and still tests', () => {
    const npm = `${tested('40 passed, 0 failed')}; case "$*" in *lint*) exit 1;; esac`;
    expect(ci(npm).slice(-2)).toEqual(['44 passed, 1 failed', 'exit 1']);
  });

  it('fails at once if nothing can be installed', () => {
    expect(ci('exit 1')).toEqual(['1 passed, 1 failed', 'exit 1']);
  });
});
