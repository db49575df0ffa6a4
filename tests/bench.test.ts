/** What `bench` and bench/compare.mjs make of their measurements. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { flatten, idsOf, selectCases } from '../bench/peers.mjs';
import { missed, render, rowsOf, summaryOf } from '../bench/report.mjs';
import { boundOf, type Level } from '../src/cli/machine.js';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = mkdtempSync(join(tmpdir(), 'weightloom-bench-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const workloads = {
  timing: { samples_min: 3, samples_max: 3, target_seconds: 0.01, skip_if_one_call_exceeds_s: 8 },
  A: { cases: [8, 16].map(N => ({ id: `A${N}`, N })) },
  B: { cases: [{ id: 'B0', T: 2, k: 3, D: 5 }] },
  C: {
    T: [2, 4],
    nio: [
      [1, 2, 3],
      [4, 5, 6],
    ],
  },
  D: { cases: [{ id: 'D0', T: 2, k: 3, n: 2, i: 4, o: 3 }] },
  E: { cases: [] },
  F: { cases: [] },
  G: { cases: [] },
  H: { cases: [{ id: 'H9', chain: 9 }] },
};

describe('a bound', () => {
  const rate = (perSecond: number) => ({ perSecond, ms: 1, n: 1 });
  const level = (name: Level['name'], capacity: number, speed: number): Level => ({
    name,
    capacity,
    read: rate(2 * speed),
    write: rate(speed),
    copy: rate(2.5 * speed),
  });
  const machine = {
    flops: rate(1e9),
    levels: [level('l2', 1000, 1e9), level('l3', 1e4, 1e8), level('memory', Infinity, 1e7)],
  };

  it.each([
    ['operations', 5e6, 400, 400, 5],
    ['reading what fits the nearest cache', 0, 1000, 0, 0.0005],
    ['reading what just does not', 0, 1001, 0, 0.005005],
    ['writing more than is read', 0, 0, 1e6, 100],
    ['both at the rate of a copy', 0, 1e6, 1e6, 100],
    ['both, where the sum counts most', 0, 1.6e6, 1e6, 104],
  ])('is that of %s', (_, flops, read, written, ms) => {
    expect(boundOf(machine, flops, read, written)).toBeCloseTo(ms, 9);
  });
});

describe('a report', () => {
  const line = (peer: string, id: string, pass: string, ms: number, more = {}) => ({
    ...{ peer, threads: 1, w: id[0], id, pass, ms, min_ms: ms, n: 7 },
    ...more,
  });
  const lines = [
    line('weightloom-cpu', 'C1', 'fwd', 3),
    line('weightloom-cpu-compiled', 'C1', 'fwd', 2.5, { round: 1 }),
    line('weightloom-cpu-compiled', 'C1', 'fwd', 2, { round: 2, peak: 80 }),
    line('onednn', 'C1', 'fwd', 4),
    line('libxsmm', 'C1', 'fwd', 3),
    line('libxsmm', 'C1', 'bwd', 7),
    line('onednn', 'C1', 'bwd', 5),
    line('weightloom-cpu', 'C1', 'bwd', 10),
    line('weightloom-cpu', 'C1', 'fwdbwd', 6),
    line('torch', 'C1', 'fwdbwd', 12),
    line('torch-tf32', 'C1', 'bwd', 1, { precision: 'tf32' }),
    line('torch-tf32', 'C1', 'fwd', 1, { precision: 'tf32' }),
    line('weightloom-cpu', 'H1', 'fwd', 1),
    line('weightloom-cpu-compiled', 'H1', 'fwd', 0.01),
    line('torch', 'H1', 'fwd', 1.5),
    line('weightloom-cpu-compiled', 'C1', 'fwd', 1, { threads: 2 }),
    line('libxsmm', 'C1', 'fwd', 1.5, { threads: 2 }),
  ];
  const rows = rowsOf(lines, 1);
  const row = (key: string) => rows.find(candidate => candidate.key === key)!;

  it('compares the smallest median of ours with that of the best peer', () => {
    expect(row('C1 fwd')).toMatchObject({ eager: 3, compiled: 2, ratio: 1.5, ours: { peak: 80 } });
    expect(row('C1 fwd').peer?.peer).toBe('libxsmm');
    expect(row('C1 bwd').ratio).toBe(0.5);
    expect(rowsOf(lines, 2).map(({ key, ratio }) => [key, ratio])).toEqual([['C1 fwd', 1.5]]);
  });

  it('sets the best sum of one peer beside an autograd, and eager calls beside eager calls', () => {
    expect(row('C1 fwdbwd')).toMatchObject({ ratio: 2, composed: { peer: 'onednn', ms: 9 } });
    expect(row('C1 fwdbwd').composedRatio).toBe(1.5);
    expect(row('H1 fwd').ratio).toBe(1.5);
  });

  it("shows a GPU's own clock beside the wall's", () => {
    const clocked = lines.map(given => ({ ...given, kernel_ms: 0.25, kernel_peak: 7 }));
    const about = { backend: 'webgpu', title: 'T', machine: 'M', software: 'S', date: 'D', command: 'X' };
    const text = render(clocked, about);
    expect(text).toContain('| torch | 12 | 2.00 | onednn 9, ratio 1.50 | 0.25 | 7 |');
    expect(text).toContain('| C | 3 | 1.14 | C1 bwd 0.50 (1) | C1 bwd 0.50 |');
    const note = 'do not compute this on the device';
    expect(text).not.toContain(note);
    const folded = { ...lines.find(({ w }) => w === 'H')!, peer: 'jax-js-webgpu' };
    expect(render([...clocked, folded], about)).toContain(note);
  });

  it('sums up by geometric mean and worst row, and tells which rows miss their target', () => {
    const summary = summaryOf(rows.filter(({ w }) => w === 'C'))!;
    expect(summary).toMatchObject({ count: 3, worst: 'C1 bwd', least: 0.5 });
    expect(summary.mean).toBeCloseTo((1.5 * 0.5 * 2) ** (1 / 3), 12);
    expect(missed(rows, 'cpu').map((under: { key: string }) => under.key)).toEqual(['C1 bwd']);
    expect(missed(rows, 'webgpu').map((under: { key: string }) => under.key)).toEqual(['C1 bwd']);
    expect(summaryOf([])).toBeUndefined();
  });

  it('is a table with both numbers of threads side by side', () => {
    const about = { backend: 'cpu', title: 'T', machine: 'M', software: 'S', date: 'D', command: 'X' };
    const text = render([...lines, { peer: 'x', w: 'C', id: 'C1', pass: 'bwd', error: 'no' }], about);
    expect(text).toContain(
      '| C | 3 | 1.14 (1.45) | C1 bwd 0.50 (0.97) | C1 bwd 0.50 | 1.50 | C1 fwd 1.50 | 2.00 |',
    );
    expect(text).toContain(
      '| C1 | fwd | 3 | 2 | 80 |  | libxsmm | 3 | 1.50 |  | 1 |  |  | 2.00 | libxsmm | 1.5 | 1.50 |',
    );
    expect(text).toContain('| C1 | fwdbwd | 6 |  |  |  | torch | 12 | 2.00 | onednn 9, ratio 1.50 |');
    expect(text).toContain('- x C C1 bwd: no');
  });
});

describe('a comparison', () => {
  it('selects cases for every peer alike', () => {
    const selected = selectCases(workloads, /^(A8|C4x4x5x6|D0)$/);
    expect([...'ABCDH'].map(w => idsOf(selected, w))).toEqual([['A8'], [], ['C4x4x5x6'], ['D0'], []]);
    expect(flatten(selected)).toBe('A A8 8\nC C4x4x5x6 4 4 5 6\nD D0 2 3 2 4 3\n');
    expect(idsOf(selectCases(workloads, /^C2/), 'C')).toEqual(['C2x1x2x3', 'C2x4x5x6']);
  });

  it('runs weightloom and those peers that can be run, by turns', { timeout: 120_000 }, () => {
    writeFileSync(join(folder, 'workloads.json'), JSON.stringify(workloads));
    // PYTHON names Node here: what counts is who is called, how often, and what becomes of the lines.
    const peer = `for (const { id } of require('./workloads.json').A.cases)
      console.log(JSON.stringify({ peer: process.env.PEER_NAME, threads: +process.argv[2], w: process.argv[3], id,
        pass: 'fwd', ms: process.env.PEER_NAME === 'torch' ? 1000 : 2000, min_ms: 1000, n: 1 }));`;
    writeFileSync(join(folder, 'torch_cpu.py'), peer);
    const args = ['--suite', 'A', '--case', 'A16', '--threads', '1', '--peers', folder, '--build', folder];
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'bench/compare.mjs'), ...args],
      { encoding: 'utf8', env: { ...process.env, PYTHON: process.execPath, PEERS_NODE: folder } },
    );
    expect(stderr).toMatch(/^openblas is left out: .*ENOENT/m);
    expect(stderr).toMatch(/^numpy is left out: Error: Cannot find module/m);
    expect(stderr).not.toMatch(/^torch\S* is left out/m);
    expect(stderr.match(/round \d: torch\S*/g)).toEqual([
      ...['torch', 'torch-avx512', 'torch-malloc', 'torch-malloc-avx512'].map(name => `round 1: ${name},`),
      'round 2: torch,',
    ]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^\| A16 \| fwd \| [\d.]+ \| [\d.]+ \| [\d.e-]+ \| [\d.]+ \| torch \| 1000 \|/m);
    expect(stdout).not.toContain('| A8 |');
  });

  it('says what it wants in place of a folder without workloads', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(root, 'bench/compare.mjs'), '--peers', join(folder, 'none')],
      { encoding: 'utf8' },
    );
    expect([status, stderr]).toEqual([
      2,
      `no ${join(folder, 'none', 'workloads.json')}; expected --peers DIR with workloads.json and the peers' sources\n`,
    ]);
  });
});
