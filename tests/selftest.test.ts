import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { open } from '../src/backends/init.js';
import { checkOp, passed } from '../src/cli/check.js';
import { falsifiedBy, falsify } from '../src/cli/falsify.js';
import type { SelftestReport } from '../src/cli/selftest.js';
import { cases } from './cases.js';

const root = join(import.meta.dirname, '..');
const MINUTES = 60_000;

/** Runs the built command line. */
function selftest(args: string[], perturb = '') {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['dist/src/cli/main.js', 'selftest', ...args],
    {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, WEIGHTLOOM_PERTURB: perturb },
    },
  );
  return { status, stdout, stderr };
}
const reportOf = (stdout: string): SelftestReport => JSON.parse(stdout);

describe('selftest', () => {
  it.each(['ref', 'cpu'])(
    'passes on %s and reports every op with its bounds',
    backend => {
      const { status, stdout } = selftest(['--backend', backend, '--json']);
      expect(stdout.trimEnd().split('\n')).toHaveLength(1);
      const report = reportOf(stdout);
      expect(Object.keys(report)).toEqual(['backend', 'ops', 'passed', 'failed']);
      expect(report.failed).toEqual([]);
      expect(status).toBe(0);
      expect(report.backend).toBe(backend);
      expect(report.ops.map(({ name }) => name)).toEqual(Object.keys(cases));
      expect(report.passed).toBe(report.ops.length);
      const differentiated = report.ops.filter(({ gradient }) => gradient !== null);
      expect(differentiated.length).toBeGreaterThanOrEqual(55);
      for (const { value, gradient, second } of differentiated)
        for (const measured of [value, gradient!, second!])
          expect(measured.error).toBeLessThanOrEqual(measured.bound);
    },
    4 * MINUTES,
  );

  it.each([
    ['ref', 'gelu'],
    ['cpu', 'argmax'],
  ])(
    'fails and names the op that is falsified on %s',
    (backend, op) => {
      const { status, stdout, stderr } = selftest(['--backend', backend], `${backend}:${op}`);
      expect(status).toBe(1);
      expect(stdout.trimEnd().split('\n').at(-1)).toMatch(
        new RegExp(`^${backend}: \\d+ passed, 1 failed ${op}$`),
      );
      expect(stderr).not.toContain(' at ');
    },
    4 * MINUTES,
  );
});

describe('a falsified op', () => {
  it.each(['ref', 'cpu'] as const)(
    'is seen on %s, whichever it is',
    async name => {
      const backend = await open(name);
      const viewsOnly = [
        'reshape',
        'permute',
        'transpose',
        'broadcastTo',
        'slice',
        'expand',
        'squeeze',
        'unpack',
      ];
      const composed: Record<string, string> = {
        mean: 'sum',
        variance: 'square',
        sumTo: 'sum',
        einsum: 'matmul',
        avgPool: 'sumPool',
        stack: 'concat',
        contiguous: 'copy',
        linear: 'matmul',
        convolve: 'conv2d',
        vectorFor: 'mul',
        materialise: 'matmul',
        projectFull: 'matmul',
        split: 'random',
        foldIn: 'random',
        uniform: 'random',
        normal: 'random',
        checkpoint: 'sin',
        customVjp: 'exp',
      };
      const written = ['key', 'tensor', 'full', 'zeros', 'ones'];
      const blind: string[] = [];
      for (const op of Object.keys(cases)) {
        if (viewsOnly.includes(op) || written.includes(op)) continue;
        if (passed(await checkOp(op, falsify(backend, composed[op] ?? op)))) blind.push(op);
      }
      expect(blind).toEqual([]);
      backend.dispose();
    },
    2 * MINUTES,
  );

  it('is named with its backend, and reaches no other', async () => {
    const ref = await open('ref');
    expect(falsifiedBy('cpu:softmax', ref)).toBe(ref);
    expect(falsifiedBy('', ref)).toBe(ref);
    expect(passed(await checkOp('softmax', falsifiedBy('ref:softmax', ref)))).toBe(false);
    expect(() => falsifiedBy('softmax', ref)).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT' }));
  });
});
