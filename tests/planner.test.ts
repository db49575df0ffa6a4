/** The planner's rates: fitted, kept, used; its cuts under a memory budget; and the bench that judges its choices. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { keepRates, withRates } from '../src/backends/stored.js';
import { benchGenerate, type GenerateLine, showGenerate } from '../src/cli/generate.js';
import { benchPlans, drawShapes, type PlanLine, type PlannerScore, scoresOf } from '../src/cli/plans.js';
import { DataError, init, type LinearShapes, MemoryContractError, open, planLinear } from '../src/index.js';
import { fitRates, machineOf, machines, readRates, type Sample, secondsOf } from '../src/program/rates.js';

const folder = mkdtempSync(join(tmpdir(), 'weightloom-rates-'));
const before = process.env.WEIGHTLOOM_CACHE;
beforeAll(() => {
  process.env.WEIGHTLOOM_CACHE = folder;
});
afterAll(() => {
  process.env.WEIGHTLOOM_CACHE = before;
  rmSync(folder, { recursive: true, force: true });
});

const shapes: LinearShapes = { kind: 'full', tasks: 64, rows: 10, in: 96, out: 80, code: 32 };
const [weave, apply] = planLinear(shapes).candidates.find(c => c.strategy === 'materialise')!.steps;
const zero = [0, 0, 0, 0, 0, 0, 0];
const rates = {
  fwd: { weave: [2e-6, 0, 0, 1e-11, 1e-11, 2e-11, 1e-10], apply: [1e-6, 1e-7, 0, 2e-11, 0, 0, 3e-10] },
  fwdbwd: { weave: zero, apply: zero },
};

describe('rates', () => {
  it('are summed over launch, tasks, lines, operations and bytes by how near they are', () => {
    const machine = { ...machines.cpu, rates };
    expect(weave).toMatchObject({ tasks: 1, lines: 64, flops: 2 * 64 * 32 * 7680 });
    // 4 (64 (32 + 7680) + 32 · 7680) bytes: a million near, the rest in the middle.
    const bytes = 4 * (64 * (32 + 7680) + 32 * 7680);
    expect(secondsOf(weave, machine, 'fwd')).toBeCloseTo(
      2e-6 + 1e-11 * weave.flops + 1e-11 * 1e6 + 2e-11 * (bytes - 1e6),
      15,
    );
    expect(apply.tasks).toBe(64);
    const outer = planLinear(shapes).candidates.find(c => c.strategy === 'reorder')!.steps[0];
    expect(secondsOf(outer, machine, 'fwd')).toBe(secondsOf(outer, machines.cpu, 'fwd'));
    expect(secondsOf(outer, machines.cpu, 'fwdbwd')).toBe(3 * secondsOf(outer, machines.cpu, 'fwd'));
  });

  it('are found again from times that obey them', () => {
    const machine = { ...machines.cpu, rates };
    const samples: Sample[] = [];
    for (const tasks of [1, 8, 100, 700])
      for (const rows of [1, 7, 30])
        for (const code of [4, 50, 200])
          for (const size of [3, 40, 300]) {
            const plan = planLinear({ kind: 'full', tasks, rows, code, in: size, out: size + 5 });
            const { steps } = plan.candidates.find(c => c.strategy === 'materialise')!;
            const seconds = steps.reduce((sum, step) => sum + secondsOf(step, machine, 'fwd'), 0);
            samples.push({ pass: 'fwd', steps, seconds });
          }
    const found = { ...machines.cpu, rates: fitRates(samples) };
    expect(Object.keys(found.rates.fwdbwd)).toEqual([]);
    for (const { steps, seconds } of samples) {
      const predicted = steps.reduce((sum, step) => sum + secondsOf(step, found, 'fwd'), 0);
      expect(Math.abs(predicted / seconds - 1)).toBeLessThan(0.01);
    }
    expect(Math.min(...Object.values(found.rates.fwd).flat())).toBeGreaterThanOrEqual(0);
  });

  it('are refused where they are none', () => {
    expect(() => readRates({ fwd: {} })).toThrow(/no 'fwdbwd'/);
    expect(() => readRates({ fwd: { weave: [1] }, fwdbwd: {} })).toThrow(
      /'weave' must be 7 numbers from 0, got \[1\]/,
    );
    expect(() => readRates({ fwd: { weave: [...zero.slice(1), -1] }, fwdbwd: {} })).toThrow(/from 0/);
    expect(readRates(rates)).toBe(rates);
  });

  it('are kept for a device, and used by the backend opened on it', async () => {
    const backend = await open('cpu', { threads: 1 });
    expect(machineOf(backend)).toEqual(machines.cpu);
    const emulated = { ...backend, name: 'webgpu', describe: () => ({ software: true }) };
    expect(machineOf(emulated)).toEqual(machines.software);
    const file = keepRates(backend, rates)!;
    expect(readdirSync(folder)).toHaveLength(1);
    expect(machineOf(await open('cpu', { threads: 1 })).rates).toEqual(rates);
    expect(machineOf(await open('cpu', { threads: 2 })).rates).toBeUndefined();
    writeFileSync(file, '{');
    await expect(open('cpu', { threads: 1 })).rejects.toThrow(DataError);
    expect(() => withRates(backend)).toThrow(/delete it, or measure again/);
    rmSync(file);
  });
});

describe('a memory budget', () => {
  // W and its gradient: 2 · 4 · 64 · 96 · 80 bytes; cut, the basis' gradient and its sum stay beside them.
  const W = 4 * 64 * 96 * 80;
  const plan = (maxBytes: number, options = {}) =>
    planLinear(shapes, { strategy: 'materialise', maxBytes, ...options });

  it('cuts the tasks in the fewest parts that fit', () => {
    expect(plan(W).parts).toBe(1);
    expect(plan(W - 1).parts).toBe(2);
    for (const [tasks, parts] of [
      [21, 4],
      [13, 5],
      [3, 22],
    ])
      expect(plan((W / 64) * tasks)).toMatchObject({ parts });
    expect(plan(2 * W, { pass: 'fwdbwd' }).parts).toBe(1);
    const many = { ...shapes, tasks: 640 };
    const basis = 2 * 4 * 32 * 96 * 80;
    for (const [bytes, parts] of [
      [10 * W + basis, 2],
      [10 * W + basis - 1, 3],
    ])
      expect(planLinear(many, { strategy: 'materialise', pass: 'fwdbwd', maxBytes: bytes }).parts).toBe(
        parts,
      );
    expect(plan(W - 1).explain()).toMatch(/materialise in 2 parts: .* 983 kB of temporaries/);
  });

  it('takes a slower plan that fits before a faster one that does not', () => {
    const many = { ...shapes, rows: 60 };
    expect(planLinear(many).strategy).toBe('materialise');
    expect(planLinear(many, { whole: true, maxBytes: 0 })).toMatchObject({ strategy: 'fused', parts: 1 });
  });

  it('that nothing fits is refused with the exact shortfall', () => {
    expect(() => plan(1000)).toThrow(
      new MemoryContractError(
        'planLinear: a full weight [96,80] for 64 tasks needs 30720 bytes of temporaries at least, 29720 more than maxBytes = 1000',
      ),
    );
    expect(() => plan(W - 1, { whole: true })).toThrow(/1 more than maxBytes/);
  });
});

describe('suite I', () => {
  it('draws the same shapes every time, within their ranges', async () => {
    const ref = await open('ref');
    const drawn = await drawShapes(ref, 0, 300);
    expect(drawn).toEqual(await drawShapes(await open('cpu'), 0, 300));
    const range = (f: (s: LinearShapes) => number) => [Math.min(...drawn.map(f)), Math.max(...drawn.map(f))];
    for (const [f, least, most] of [
      [(s: LinearShapes) => s.tasks, 1, 1024],
      [(s: LinearShapes) => s.rows, 1, 100],
      [(s: LinearShapes) => s.code, 4, 256],
      [(s: LinearShapes) => s.in, 1, 512],
      [(s: LinearShapes) => s.out, 1, 512],
    ] as const) {
      expect(range(f)[0]).toBeLessThanOrEqual(1.1 * least + 1);
      expect(range(f)[1]).toBeGreaterThan(0.9 * most);
      expect(range(f)[1]).toBeLessThanOrEqual(most);
    }
  });

  it('measures every plan of a shape, and scores the choices', async () => {
    const lines: (PlanLine | PlannerScore)[] = [];
    const cpu = await init({ backend: 'cpu', threads: 1 });
    await benchPlans(
      cpu,
      id => id === 'I4',
      line => lines.push(line),
    );
    expect(lines.map(({ id, pass }) => `${id} ${pass}`)).toEqual([
      'I4 fwd',
      'I4 fwdbwd',
      'planner fwd',
      'planner fwdbwd',
    ]);
    for (const { ms, predicted_ms, chosen } of lines.slice(0, 2) as PlanLine[]) {
      expect(Object.keys(ms).sort()).toEqual(Object.keys(predicted_ms).sort());
      expect(ms[chosen]).toBeGreaterThan(0);
      expect(Math.min(...Object.values(predicted_ms))).toBe(predicted_ms[chosen]);
    }
  });

  it('counts a choice within 10 % of the best', () => {
    const line = (ms: PlanLine['ms'], loss: number): PlanLine => ({
      ...{
        peer: 'x',
        threads: 1,
        w: 'I',
        id: 'I0',
        pass: 'fwd',
        shapes,
        chosen: 'materialise',
        predicted_ms: {},
      },
      ms,
      loss,
    });
    const [score, ...none] = scoresOf([
      line({ materialise: 1.1, reorder: 1 }, 1.1),
      line({ materialise: 1, reorder: 2 }, 1),
      line({ materialise: 4, reorder: 1 }, 4),
    ]);
    expect(none).toEqual([]);
    expect(score).toMatchObject({
      pass: 'fwd',
      cases: 3,
      within: 2 / 3,
      worst: 4,
      fastest: { materialise: 1, reorder: 2 },
    });
    expect(score.mean).toBeCloseTo(4.4 ** (1 / 3), 12);
  });
});

describe('suite generate', () => {
  it('tells weights a second and bytes of every plan, and which one is chosen', async () => {
    const lines: GenerateLine[] = [];
    const cpu = await init({ backend: 'cpu', threads: 1 });
    await benchGenerate(
      cpu,
      id => id === 'T512n5E16i32o32',
      line => lines.push(line),
    );
    for (const pass of ['fwd', 'fwdbwd']) {
      const mine = lines.filter(line => line.pass === pass);
      expect(mine.map(({ peer }) => peer)).toContain('weightloom-cpu-materialise');
      expect(mine.filter(({ chosen }) => chosen)).toHaveLength(1);
    }
    for (const { ms, weights_per_s, bytes, pass, peer } of lines) {
      expect(weights_per_s / ((512 * 32 * 32) / (ms / 1e3))).toBeCloseTo(1, 3);
      // Code, basis, rows in and out; W where it is made.
      const operands = 4 * (512 * 16 + 16 * 1024 + 512 * 5 * 64);
      const W = peer.endsWith('materialise') ? 4 * 512 * 1024 : 0;
      expect(bytes).toBeGreaterThanOrEqual(operands + W);
      expect(showGenerate(lines[0])).toContain(lines[0].id);
      expect(['fwd', 'fwdbwd']).toContain(pass);
    }
  });
});
