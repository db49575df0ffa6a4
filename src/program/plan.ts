/**
 * How a generated weight is applied to rows: every way there is, its cost by a roofline, and the cheapest. Pure
 * arithmetic on sizes, so that a choice can be explained, tested and overridden without running anything.
 */
import { ArgumentError } from '../core/errors.js';

/**
 * - `materialise`: W[t] = Σ_e code[t,e] basis[e], then one product per task.
 * - `reorder`: (code ⊗ x) · basis as one product; no W is made.
 * - `lowRank`: x · a[t] · b[t]; no W is made.
 */
export type Strategy = 'materialise' | 'reorder' | 'lowRank';

/** Sizes of one generated linear layer. */
export interface LinearShapes {
  readonly kind: 'full' | 'chunked' | 'lowRank';
  /** T. */
  readonly tasks: number;
  /** n: rows of each task (their mean where they differ). */
  readonly rows: number;
  readonly in: number;
  readonly out: number;
  /** E: width of the code (the rank r for lowRank). */
  readonly code: number;
  /** For a chunked weight: how many chunks (C), and elements of one. */
  readonly chunks?: number;
  readonly chunk?: number;
  /** A part all tasks share is added. */
  readonly base?: boolean;
  /** The basis is a window of a wider one; reordering copies it first. */
  readonly windowed?: boolean;
}

/** What the roofline is made of. */
export interface Machine {
  /** Sustained f32 operations per second of a large product. */
  readonly flops: number;
  /** Sustained bytes per second between memory and the kernel. */
  readonly bandwidth: number;
  /** Seconds one kernel costs beside its work. */
  readonly launch: number;
}

/** Round figures by backend: two AVX-512 server cores, a data-centre GPU, plain TypeScript. */
export const machines: Readonly<Record<string, Machine>> = {
  cpu: { flops: 120e9, bandwidth: 40e9, launch: 2e-6 },
  webgpu: { flops: 20e12, bandwidth: 2e12, launch: 4e-6 },
  ref: { flops: 0.3e9, bandwidth: 4e9, launch: 1e-6 },
};

/** What is assumed of a backend: its own figures, or those of `cpu` for one that is not in the table. */
export const machineOfBackend = (name: string): Machine => machines[name] ?? machines.cpu;

/** One kernel of a plan. */
export interface PlanStep {
  readonly what: string;
  readonly flops: number;
  readonly bytes: number;
}

/** One way to apply the weight, and what it costs forward. */
export interface Candidate {
  readonly strategy: Strategy;
  readonly steps: readonly PlanStep[];
  readonly flops: number;
  readonly bytes: number;
  /** Predicted: each step takes the longer of its operations and its bytes, plus a launch. */
  readonly seconds: number;
}

export interface LinearPlan {
  readonly shapes: LinearShapes;
  readonly machine: Machine;
  readonly strategy: Strategy;
  /** True if the caller chose. */
  readonly forced: boolean;
  /** Cheapest first. */
  readonly candidates: readonly Candidate[];
  /** The choice, each candidate's cost, and why the others lose. */
  explain(): string;
}

export interface PlanOptions {
  /** Takes the choice out of the planner's hands. */
  readonly strategy?: Strategy;
  /** A backend's name, or constants of your own; 'cpu' unless given. */
  readonly machine?: string | Machine;
}

const available: Readonly<Record<LinearShapes['kind'], readonly Strategy[]>> = {
  full: ['materialise', 'reorder'],
  chunked: ['materialise'],
  lowRank: ['materialise', 'lowRank'],
};

/** A product `[m,k] · [k,n]` of `T` tasks; the right side may be one for all. Everything passes memory once. */
const product = (what: string, T: number, m: number, k: number, n: number, shared = false): PlanStep => ({
  what,
  flops: 2 * T * m * k * n,
  bytes: 4 * (T * m * (k + n) + (shared ? 1 : T) * k * n),
});
const pass = (what: string, flops: number, elements: number): PlanStep => ({
  what,
  flops,
  bytes: 4 * elements,
});

function weaving(s: LinearShapes): PlanStep {
  const { tasks: T, in: i, out: o, code: E } = s;
  if (s.kind === 'lowRank') return product('W = a · b', T, i, E, o);
  if (s.kind === 'full') return product('W = code · basis', T, 1, E, i * o, true);
  const { chunks = 1, chunk = i * o } = s;
  return product('W = code · basis', T, chunks, E, chunk, true);
}

function stepsOf(strategy: Strategy, s: LinearShapes): PlanStep[] {
  const { tasks: T, rows: n, in: i, out: o, code: E, base, windowed } = s;
  const shared = base
    ? [product('x · base', T, n, i, o, true), pass('sum of both', T * n * o, 3 * T * n * o)]
    : [];
  switch (strategy) {
    case 'materialise':
      return [
        weaving(s),
        ...(base ? [pass('W + base', T * i * o, 2 * T * i * o + i * o)] : []),
        product('y = x · W', T, n, i, o),
      ];
    case 'reorder':
      return [
        ...(windowed ? [pass('basis made dense', 0, 2 * E * i * o)] : []),
        pass('code ⊗ x', T * n * E * i, T * (E + n * i + n * E * i)),
        product('y = (code ⊗ x) · basis', T, n, E * i, o, true),
        ...shared,
      ];
    case 'lowRank':
      return [product('h = x · a', T, n, i, E), product('y = h · b', T, n, E, o), ...shared];
  }
}

function cost(strategy: Strategy, shapes: LinearShapes, machine: Machine): Candidate {
  const steps = stepsOf(strategy, shapes);
  const total = (f: (step: PlanStep) => number) => steps.reduce((sum, step) => sum + f(step), 0);
  return {
    strategy,
    steps,
    flops: total(step => step.flops),
    bytes: total(step => step.bytes),
    seconds: total(
      step => machine.launch + Math.max(step.flops / machine.flops, step.bytes / machine.bandwidth),
    ),
  };
}

/**
 * The cheapest way to apply a generated linear layer, forward; the backward pass costs each about twice that, so the
 * order is the same. Throws ArgumentError for a strategy this kind of weight does not have, or a size that is none.
 */
export function planLinear(shapes: LinearShapes, options: PlanOptions = {}): LinearPlan {
  const { tasks, rows, in: i, out, code } = shapes;
  for (const [name, n] of Object.entries({ tasks, rows, in: i, out, code }))
    if (!(n >= 0 && n < Infinity)) throw new ArgumentError(`planLinear: ${name} must be a size, got ${n}`);
  const ways = available[shapes.kind];
  const { strategy: wanted } = options;
  if (wanted && !ways.includes(wanted))
    throw new ArgumentError(
      `planLinear: a ${shapes.kind} weight has the plans ${ways.join(', ')}, not ${wanted}`,
    );
  const machine = machineOf(options.machine ?? 'cpu');
  const candidates = ways.map(way => cost(way, shapes, machine)).sort((a, b) => a.seconds - b.seconds);
  const strategy = wanted ?? candidates[0].strategy;
  const plan = { shapes, machine, strategy, forced: wanted !== undefined, candidates };
  return { ...plan, explain: () => explain(plan) };
}

function machineOf(machine: string | Machine): Machine {
  if (typeof machine !== 'string') return machine;
  const found = machines[machine];
  if (!found)
    throw new ArgumentError(
      `planLinear: machine '${machine}' is none of ${Object.keys(machines).join(', ')}`,
    );
  return found;
}

const sized = (x: number, units: readonly string[]): string => {
  let k = 0;
  while (x >= 1000 && k < units.length - 1) {
    x /= 1000;
    k++;
  }
  return `${x.toPrecision(3)} ${units[k]}`;
};
const flopsText = (x: number) => sized(x, ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP']);
const bytesText = (x: number) => sized(x, ['B', 'kB', 'MB', 'GB', 'TB']);
const timeText = (x: number) => sized(x * 1e9, ['ns', 'us', 'ms', 's']);

function explain({ shapes: s, machine, strategy, forced, candidates }: Omit<LinearPlan, 'explain'>): string {
  const chosen = candidates.find(c => c.strategy === strategy)!;
  const line = (c: Candidate) =>
    `${c.strategy}: ${flopsText(c.flops)}, ${bytesText(c.bytes)}, ${timeText(c.seconds)} (${c.steps.map(x => x.what).join('; ')})`;
  const why = (c: Candidate) => {
    const ratio = (f: (c: Candidate) => number) => (f(c) / f(chosen)).toPrecision(2);
    const slower = c.seconds >= chosen.seconds;
    return `  ${slower ? 'loses' : 'would win'}: ${ratio(x => x.seconds)}x the time, ${ratio(x => x.flops)}x the FLOPs, ${ratio(x => x.bytes)}x the bytes`;
  };
  return [
    `${s.kind} weight [${s.in},${s.out}] for ${s.tasks} tasks of ${s.rows} rows, code ${s.code}: ${strategy}${forced ? ' (as asked)' : ''}`,
    line(chosen),
    ...candidates.filter(c => c !== chosen).flatMap(c => [line(c), why(c)]),
    `machine: ${flopsText(machine.flops)}/s, ${bytesText(machine.bandwidth)}/s, ${timeText(machine.launch)} a kernel`,
  ].join('\n');
}
