import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { BenchLine } from '../src/cli/bench.js';
import type { Info } from '../src/cli/info.js';

const root = join(import.meta.dirname, '..');
const folder = mkdtempSync(join(tmpdir(), 'weightloom-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs the built command line. */
function weightloom(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/src/cli/main.js', ...args], {
    cwd: root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  return { status, stdout, stderr, lines: stdout.trimEnd().split('\n') };
}
/** What the library itself said on stderr; graphics drivers talk there too. */
const said = (stderr: string) => stderr.split('\n').filter(line => line.startsWith('weightloom: '));

describe('weightloom', () => {
  it('prints its version and its help', () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
    expect(weightloom(['--version'])).toMatchObject({ status: 0, stdout: `${version}\n`, stderr: '' });
    const help = weightloom(['--help']);
    expect(help.status).toBe(0);
    for (const command of ['info', 'selftest', 'train', 'eval', 'bench']) {
      expect(help.stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
      const own = weightloom([command, '--help']);
      expect(own.status).toBe(0);
      expect(own.lines[0]).toMatch(new RegExp(`^usage: weightloom ${command}( |$)`));
    }
  });

  it.each([
    [[], /no command given; expected one of info, selftest, train, eval, reproduce, bench/],
    [['dance'], /'dance' is no command; expected one of/],
    [['info', '--colour'], /unknown option --colour; expected info \[--json\]/],
    [
      ['selftest', '--backend', 'abacus'],
      /--backend was given 'abacus'; expected one of ref, cpu, webgpu, all/,
    ],
    [['bench', '--threads', '0'], /--threads was given '0'; expected a whole number of at least 1/],
    [['bench', '--case', '('], /--case was given '\('; expected a regular expression/],
    [['bench', '--suite', 'Q'], /--suite was given 'Q'; expected letters of A/],
  ])('refuses %j with one line and exit code 2', (args, expected) => {
    const { status, stdout, stderr } = weightloom(args);
    expect(status).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^weightloom: .*\n$/);
    expect(stderr).toMatch(expected);
  });

  it('refuses a malformed WEIGHTLOOM_PERTURB', () => {
    const { status, stderr } = weightloom(['selftest', '--backend', 'ref'], {
      WEIGHTLOOM_PERTURB: 'softmax',
    });
    expect(status).toBe(2);
    expect(stderr).toMatch(/WEIGHTLOOM_PERTURB is 'softmax'; expected BACKEND:OP/);
  });

  it('fails with one line, the code of the error and exit code 1', () => {
    const { status, stdout, stderr } = weightloom(['bench', '--workloads', join(folder, 'absent.json')]);
    expect(status).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/^weightloom: workloads: .*absent\.json.*\(ERR_DATA\)\n$/);
  });
});

describe('info', () => {
  it('prints one object with every backend and the one chosen', () => {
    const { status, lines } = weightloom(['info', '--json'], { WEIGHTLOOM_BACKEND: '' });
    expect(status).toBe(0);
    expect(lines).toHaveLength(1);
    const info: Info = JSON.parse(lines[0]);
    expect(Object.keys(info)).toEqual(['version', 'node', 'platform', 'backends', 'chosen']);
    expect(Object.keys(info.backends)).toEqual(['ref', 'cpu', 'webgpu']);
    expect(info.backends.ref).toEqual({ ok: true });
    expect(info.backends[info.chosen as 'cpu'].ok).toBe(true);
    const { cpu, webgpu } = info.backends;
    expect(cpu).toMatchObject({ ok: true, isa: expect.any(String), threads: expect.any(Number) });
    if (webgpu.ok) expect(webgpu).toMatchObject({ adapter: expect.any(String), limits: expect.any(Object) });
    else expect(webgpu.reason).toBeTruthy();
  });

  it('says why a backend cannot be had, and chooses the one asked for', () => {
    const { status, lines } = weightloom(['info', '--json'], {
      WEIGHTLOOM_NATIVE: 'off',
      WEIGHTLOOM_BACKEND: 'ref',
    });
    expect(status).toBe(0);
    const info: Info = JSON.parse(lines[0]);
    expect(info.backends.cpu).toMatchObject({ ok: false, reason: expect.stringMatching(/./) });
    expect(info.chosen).toBe('ref');
  });

  it('prints a line per backend for people', () => {
    const { lines } = weightloom(['info']);
    expect(lines[0]).toMatch(/^weightloom \d+\.\d+\.\d+, Node \d+/);
    expect(lines.filter(line => line.startsWith('* '))).toHaveLength(1);
    expect(lines).toHaveLength(4);
  });
});

describe('bench', () => {
  const timing = { samples_min: 3, samples_max: 5, target_seconds: 0.02, skip_if_one_call_exceeds_s: 8 };
  const workloads = {
    timing,
    A: { cases: [{ id: 'A8', N: 8 }] },
    B: { cases: [{ id: 'B0', T: 2, k: 3, D: 5 }] },
    C: { T: [2], nio: [[3, 4, 5]] },
    D: { cases: [{ id: 'D0', T: 2, k: 3, n: 2, i: 4, o: 3 }] },
    E: {
      cases: [{ id: 'E0', T: 3, support: 4, query: 4, enc: [2, 8, 8], gen: 32, target: [1, 5, 3, 1] }],
    },
    F: { cases: [{ id: 'F0', batch: 5 }] },
    G: {
      cases: ['affrelu', 'softmax', 'sum0', 'sum1', 'layernorm'].map(id => ({
        id: `G-${id}`,
        shape: [4, 6],
      })),
    },
    H: { cases: [{ id: 'H9', chain: 9 }] },
  };
  const file = join(folder, 'workloads.json');
  writeFileSync(file, JSON.stringify(workloads));

  it('prints a line per case, eager and compiled, with every suite', () => {
    const args = [
      'bench',
      '--backend',
      'cpu',
      '--threads',
      '1',
      '--suite',
      'ABCDEFGHO',
      '--workloads',
      file,
      '--json',
    ];
    const { status, lines } = weightloom(args);
    const results: BenchLine[] = lines.map(line => JSON.parse(line));
    expect(results.filter(line => line.error !== undefined || line.note !== undefined)).toEqual([]);
    expect(status).toBe(0);
    expect(new Set(results.map(({ w }) => w))).toEqual(new Set('ABCDEFGHO'));
    for (const { peer, threads, ms, min_ms, n } of results) {
      expect(peer).toMatch(/^weightloom-cpu(-compiled)?$/);
      expect(threads).toBe(1);
      expect(min_ms).toBeGreaterThan(0);
      expect(ms).toBeGreaterThanOrEqual(min_ms!);
      expect(n).toBeGreaterThanOrEqual(timing.samples_min);
    }
    const step = results.filter(({ w }) => w === 'E').map(({ peer, pass, id }) => [peer, pass, id]);
    expect(step).toEqual([
      ['weightloom-cpu', 'step', 'E0'],
      ['weightloom-cpu-compiled', 'step', 'E0'],
    ]);
    const product = results.find(({ id }) => id === 'A8')!;
    expect(product.gflops! * product.ms! * 1e6).toBeCloseTo(2 * 8 ** 3, 0);
    expect(product.bytes).toBe(3 * 8 * 8 * 4);
    // The gradient products read H, P and G and return those of H and P.
    const [T, k, D] = [2, 3, 5];
    expect(results.find(({ id, pass }) => id === 'B0' && pass === 'bwd')!.bytes).toBe(
      4 * (2 * (T * k + k * D) + T * D),
    );
    expect(new Set(results.filter(({ w }) => w === 'H').map(({ pass }) => pass))).toEqual(
      new Set(['fwd', 'fwdgrad', 'fwdbwd']),
    );
    for (const { w, peak, cal } of results) {
      expect(cal).toBeGreaterThan(0);
      if (w !== 'H') expect(peak).toBeGreaterThan(0);
    }
  }, 120_000);

  it("prints the machine's own rates as suite L, and the cases that --case picks", () => {
    const args = ['bench', '--backend', 'cpu', '--suite', 'LAB', '--workloads', file, '--json'];
    const { status, lines } = weightloom([...args, '--case', '^B']);
    expect(status).toBe(0);
    const results: BenchLine[] = lines.map(line => JSON.parse(line));
    const rates = results.filter(({ w }) => w === 'L');
    const ways = ['l2', 'l3', 'memory'].flatMap(level =>
      ['read', 'write', 'copy'].map(way => `${level}-${way}`),
    );
    expect(rates.map(({ id }) => id)).toEqual(['fma', ...ways]);
    // No processor is this slow or this fast.
    for (const { gflops, GBs } of rates) {
      expect(gflops ?? GBs).toBeGreaterThan(0.05);
      expect(gflops ?? GBs).toBeLessThan(1e5);
    }
    expect(new Set(results.slice(rates.length).map(({ id }) => id))).toEqual(new Set(['B0']));
    const none = weightloom([...args, '--case', 'nothing']);
    expect([none.status, said(none.stderr)]).toEqual([
      2,
      ['weightloom: bench: --case nothing matches no id of suite LAB (ERR_ARGUMENT)'],
    ]);
  }, 120_000);

  it("tells the time on the wall and on the device's clock apart on WebGPU", () => {
    const args = ['bench', '--backend', 'webgpu', '--suite', 'LAH', '--workloads', file, '--json'];
    const { status, lines } = weightloom(args);
    expect(status).toBe(0);
    const results: BenchLine[] = lines.map(line => JSON.parse(line));
    expect(results.map(({ id }) => id).slice(0, 4)).toEqual([
      'fma',
      'memory-read',
      'memory-write',
      'memory-copy',
    ]);
    const cases = results.slice(4);
    expect(cases.map(({ peer, id, pass }) => `${peer} ${id} ${pass}`)).toEqual([
      ...['weightloom-webgpu A8 fwd', 'weightloom-webgpu-compiled A8 fwd'],
      ...['fwd', 'fwdgrad', 'fwdbwd'].flatMap(pass =>
        ['', '-compiled'].map(how => `weightloom-webgpu${how} H9 ${pass}`),
      ),
    ]);
    for (const { ms, kernel_ms } of cases) {
      expect(kernel_ms).toBeGreaterThan(0);
      expect(kernel_ms).toBeLessThan(10 * ms!);
    }
    expect(cases[0].kernel_peak).toBeGreaterThan(0);
  }, 120_000);

  it.each(['tinybench', 'benchmark'])(
    'samples with the package %s',
    timer => {
      const args = ['bench', '--backend', 'ref', '--suite', 'E', '--workloads', file, '--json'];
      const { status, lines } = weightloom(args, { WEIGHTLOOM_TIMER: timer });
      expect(status).toBe(0);
      expect(lines.map(line => JSON.parse(line).peer)).toEqual(['weightloom-ref', 'weightloom-ref-compiled']);
      for (const line of lines) expect(JSON.parse(line).n).toBeGreaterThanOrEqual(timing.samples_min);
    },
    120_000,
  );

  it('refuses another timer and a file that is none', () => {
    const unknown = weightloom(['bench', '--backend', 'ref', '--workloads', file], {
      WEIGHTLOOM_TIMER: 'sundial',
    });
    expect(unknown.status).toBe(2);
    expect(said(unknown.stderr)).toEqual([
      "weightloom: WEIGHTLOOM_TIMER is 'sundial'; expected one of tinybench, benchmark (ERR_ARGUMENT)",
    ]);
    const broken = join(folder, 'broken.json');
    writeFileSync(broken, '{"timing": {}}');
    const { status, stderr } = weightloom(['bench', '--workloads', broken]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/broken\.json has no 'A' \(ERR_DATA\)/);
  });
});
