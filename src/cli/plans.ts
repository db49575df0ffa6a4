/**
 * The plans of generated layers, measured: to fit the planner's rates to a device (`bench --calibrate`), and to see how
 * often it then picks a plan that is near the best (`bench --suite I`).
 */
import { keepRates } from '../backends/stored.js';
import type { Backend } from '../core/backend.js';
import { vjp } from '../core/grad.js';
import { sync } from '../core/queue.js';
import { type Tensor, withBackend } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { FullGenerated, type Generated, key, LowRankGenerated, linear, uniform } from '../ops/index.js';
import { compile } from '../program/compile.js';
import { type LinearPlan, type LinearShapes, planLinear, type Strategy } from '../program/plan.js';
import { fitRates, type Machine, machineOf, type Pass, type Rates, type Sample } from '../program/rates.js';

/** Temporaries a plan may need to be measured. */
export const MOST_BYTES = 2 ** 30;
const PASSES: readonly Pass[] = ['fwd', 'fwdbwd'];

/** `count` shapes, log-uniform over T 1..1024, n 1..100, E 4..256, i and o 1..512, of those some plan can hold. */
export async function drawShapes(backend: Backend, seed: number, count: number): Promise<LinearShapes[]> {
  const found: LinearShapes[] = [];
  const between = (u: number, least: number, most: number) => Math.round(least * (most / least) ** u);
  for (let draw = 0; found.length < count; draw++) {
    const [t, n, e, i, o] = await withBackend(backend, () => uniform(key(seed * 1e6 + draw), [5])).data();
    const shapes: LinearShapes = {
      kind: 'full',
      tasks: between(t, 1, 1024),
      rows: between(n, 1, 100),
      code: between(e, 4, 256),
      in: between(i, 1, 512),
      out: between(o, 1, 512),
    };
    if (held(planLinear(shapes, { pass: 'fwdbwd' })).length > 0) found.push(shapes);
  }
  return found;
}

const held = ({ candidates }: LinearPlan) => candidates.filter(({ workspace }) => workspace <= MOST_BYTES);

const uniformly = (shape: number[], k: number): Tensor => uniform(key(k), shape, -0.5, 0.5);

/** A layer of these sizes on operands that `draw` makes, applied by one plan (the planner's unless given), compiled. */
export function layerOf(
  shapes: LinearShapes,
  pass: Pass,
  {
    strategy,
    maxBytes,
    draw: drawOne = uniformly,
  }: { readonly strategy?: Strategy; readonly maxBytes?: number; readonly draw?: typeof uniformly } = {},
) {
  const { kind, tasks: T, rows: n, code: E, in: i, out: o, base } = shapes;
  let draws = 0;
  const draw = (...shape: number[]) => drawOne(shape, ++draws);
  const operands = [
    draw(T, n, i),
    ...(kind === 'lowRank' ? [draw(T, i, E), draw(T, E, o)] : [draw(T, E), draw(E, i, o)]),
    ...(base ? [draw(i, o)] : []),
  ];
  const apply = ([x, p, q, last]: Tensor[]) => {
    const base = last ?? null;
    const w: Generated =
      kind === 'lowRank' ? new LowRankGenerated(p, q, 1, base) : new FullGenerated(p, q, base);
    return linear(x, w, null, { strategy });
  };
  const both = (g: Tensor, xs: Tensor[]) => {
    const { value, pullback } = vjp(apply, xs);
    return [value, pullback(g)];
  };
  const step = compile((g: Tensor, xs: Tensor[]): unknown => (pass === 'fwd' ? apply(xs) : both(g, xs)), {
    maxBytes,
  });
  const g = draw(T, n, o);
  return {
    /** Of the compiled step, called once before. */
    stats: () => step.stats()[0],
    /** Runs the step and gives its results back. */
    call: () => {
      for (const y of tree.leaves(step(g, operands))) (y as Tensor).dispose();
    },
    dispose: () => {
      step.dispose();
      for (const x of [g, ...operands]) x.dispose();
    },
  };
}

const ROUNDS = 5;
const SAMPLE_MS = 5;
/** A call that takes longer is not repeated. */
const LONG_MS = 2000;
/** Nor is, where only the fastest plan is sought, one that took so many times what the fastest did, */
const BEHIND = 3;
/** unless it took less than this: the first calls of a plan tell little. */
const SHORT_MS = 50;

/** The least milliseconds of a call of each plan, taken by turns; those far `behind` are given up after the first calls. */
export async function timePlans(
  backend: Backend,
  shapes: LinearShapes,
  strategies: readonly Strategy[],
  pass: Pass,
  behind = Infinity,
): Promise<Map<Strategy, number>> {
  const least = new Map<Strategy, number>();
  const layers = new Map(strategies.map(strategy => [strategy, layerOf(shapes, pass, { strategy })]));
  const sample = async (strategy: Strategy, calls: number) => {
    const start = performance.now();
    for (let k = 0; k < calls; k++) layers.get(strategy)!.call();
    await sync(backend);
    const ms = (performance.now() - start) / calls;
    least.set(strategy, Math.min(ms, least.get(strategy) ?? Infinity));
  };
  const repeated = (strategy: Strategy) =>
    least.get(strategy)! < Math.min(LONG_MS, Math.max(SHORT_MS, behind * Math.min(...least.values())));
  try {
    // The operands are drawn by now.
    await sync(backend);
    for (const strategy of strategies) {
      // The first call makes the program, which may take seconds and does not count.
      await sample(strategy, 1);
      least.delete(strategy);
      await sample(strategy, 1);
      // The second has traced the step again, to compare.
      if (repeated(strategy)) await sample(strategy, 1);
    }
    for (let round = 0; round < ROUNDS; round++)
      for (const strategy of strategies.filter(repeated))
        await sample(strategy, Math.ceil(SAMPLE_MS / least.get(strategy)!));
  } finally {
    for (const { dispose } of layers.values()) dispose();
  }
  return least;
}

const CALIBRATED = 192;
/** Operations and temporaries of what is measured to calibrate: enough to leave every cache. */
const CALIBRATED_FLOPS = 4e9;
const CALIBRATED_BYTES = 2 ** 28;

/**
 * Fits rates to every plan of 192 shapes that suite I does not have, with and without bases, of both kinds of weights.
 */
export async function calibrate(backend: Backend): Promise<{ rates: Rates; samples: number }> {
  const samples: Sample[] = [];
  for (const [k, drawn] of (await drawShapes(backend, 1, CALIBRATED)).entries()) {
    const shapes: LinearShapes = {
      ...drawn,
      base: k % 4 === 1,
      ...(k % 4 === 3 && { kind: 'lowRank', code: Math.ceil(drawn.code / 8) }),
    };
    for (const pass of PASSES) {
      const candidates = planLinear(shapes, { pass }).candidates.filter(
        ({ flops, workspace }) => flops <= CALIBRATED_FLOPS && workspace <= CALIBRATED_BYTES,
      );
      const strategies = candidates.map(({ strategy }) => strategy);
      const times = await timePlans(backend, shapes, strategies, pass, BEHIND);
      for (const { strategy, steps } of candidates)
        samples.push({ pass, steps, seconds: times.get(strategy)! / 1e3 });
    }
  }
  return { rates: fitRates(samples), samples: samples.length };
}

/** Calibrates, keeps the rates for the device and returns the file, or null where nothing is kept. */
export async function calibrateAndKeep(backend: Backend): Promise<string | null> {
  return keepRates(backend, (await calibrate(backend)).rates);
}

/** One shape of suite I and one pass: what each plan took, what was predicted, and what the planner would have taken. */
export interface PlanLine {
  readonly peer: string;
  readonly threads: number;
  readonly w: 'I';
  readonly id: string;
  readonly pass: Pass;
  readonly shapes: LinearShapes;
  readonly chosen: Strategy;
  /** Milliseconds by plan; plans whose temporaries no memory holds are missing. */
  readonly ms: Readonly<Partial<Record<Strategy, number>>>;
  readonly predicted_ms: Readonly<Partial<Record<Strategy, number>>>;
  /** Time of the chosen plan over the least. */
  readonly loss: number;
}

/** What a machine's planner makes of measured times: its choice, its predictions, and what the choice loses. */
export function judge<L extends Pick<PlanLine, 'shapes' | 'pass' | 'ms'>>(
  line: L,
  machine: Machine,
): L & Pick<PlanLine, 'chosen' | 'predicted_ms' | 'loss'> {
  const { shapes, pass, ms } = line;
  const candidates = planLinear(shapes, { machine, pass }).candidates.filter(c => ms[c.strategy]);
  const [{ strategy: chosen }] = candidates;
  return {
    ...line,
    chosen,
    predicted_ms: Object.fromEntries(
      candidates.map(({ strategy, seconds }) => [strategy, Number((1e3 * seconds).toPrecision(3))]),
    ),
    loss: Number((ms[chosen]! / Math.min(...Object.values(ms))).toPrecision(4)),
  };
}

/** What a line tells about rates. */
export const samplesOf = ({ shapes, pass, ms }: Pick<PlanLine, 'shapes' | 'pass' | 'ms'>): Sample[] =>
  planLinear(shapes, { pass }).candidates.flatMap(({ strategy, steps }) =>
    ms[strategy] ? [{ pass, steps, seconds: ms[strategy] / 1e3 }] : [],
  );

/** Measures shape number `at` of suite I. */
async function planLines(backend: Backend, shapes: LinearShapes, at: number): Promise<PlanLine[]> {
  const lines: PlanLine[] = [];
  const { threads } = backend.describe();
  for (const pass of PASSES) {
    const strategies = held(planLinear(shapes, { pass })).map(({ strategy }) => strategy);
    const times = await timePlans(backend, shapes, strategies, pass, BEHIND);
    const line = {
      peer: `weightloom-${backend.name}-compiled`,
      threads: typeof threads === 'number' ? threads : 1,
      w: 'I' as const,
      id: `I${at}`,
      pass,
      shapes,
      ms: Object.fromEntries([...times].map(([strategy, ms]) => [strategy, Number(ms.toPrecision(4))])),
    };
    lines.push(judge(line, machineOf(backend)));
  }
  return lines;
}

const SUITE_SHAPES = 300;

/** Suite I: 300 shapes of seed 0, those whose id passes `chosen`; a line for each, then the planner's scores. */
export async function benchPlans(
  backend: Backend,
  chosen: (id: string) => boolean,
  print: (line: PlanLine | PlannerScore) => void,
): Promise<void> {
  const lines: PlanLine[] = [];
  for (const [at, shapes] of (await drawShapes(backend, 0, SUITE_SHAPES)).entries())
    if (chosen(`I${at}`))
      for (const line of await planLines(backend, shapes, at)) {
        lines.push(line);
        print(line);
      }
  for (const score of scoresOf(lines)) print(score);
}

/** How good the planner was over lines of suite I: shares within 10 % of the best, by pass. */
export interface PlannerScore {
  readonly w: 'I';
  readonly id: 'planner';
  readonly pass: Pass;
  readonly cases: number;
  /** Share of the cases whose chosen plan took at most 1.1 times the least. */
  readonly within: number;
  /** Time over the least, at worst and as a geometric mean. */
  readonly worst: number;
  readonly mean: number;
  /** How often each plan was the fastest. */
  readonly fastest: Readonly<Record<string, number>>;
}

/** The score of each pass. */
export function scoresOf(lines: readonly PlanLine[]): PlannerScore[] {
  return PASSES.flatMap(pass => {
    const mine = lines.filter(line => line.pass === pass);
    if (mine.length === 0) return [];
    const fastest: Record<string, number> = {};
    for (const { ms } of mine) {
      const [best] = Object.entries(ms).sort(([, a], [, b]) => a - b)[0];
      fastest[best] = (fastest[best] ?? 0) + 1;
    }
    const score: PlannerScore = {
      w: 'I',
      id: 'planner',
      pass,
      cases: mine.length,
      within: mine.filter(({ loss }) => loss <= 1.1).length / mine.length,
      worst: Math.max(...mine.map(({ loss }) => loss)),
      mean: Math.exp(mine.reduce((sum, { loss }) => sum + Math.log(loss), 0) / mine.length),
      fastest,
    };
    return [score];
  });
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

/** A line of suite I for people; the chosen plan has a star, predictions stand in brackets. */
export function showPlans(line: PlanLine | PlannerScore): string {
  if ('within' in line)
    return (
      `planner ${line.pass}: within 10 % of the best in ${percent(line.within)} of ${line.cases} cases, ` +
      `over the best ${line.mean.toFixed(3)}x in the mean, ${line.worst.toFixed(2)}x at worst; fastest ${JSON.stringify(line.fastest)}`
    );
  const { tasks, rows, code, in: i, out } = line.shapes;
  const times = Object.entries(line.ms).map(
    ([strategy, ms]) =>
      `${strategy} ${ms} ms (${line.predicted_ms[strategy as Strategy]})${strategy === line.chosen ? '*' : ''}`,
  );
  return `${line.id.padEnd(5)} ${line.pass.padEnd(6)} T${tasks} n${rows} E${code} ${i}x${out}  ${times.join('  ')}  ${line.loss}x`;
}
