/**
 * What a plan's steps cost on a machine: by a roofline, or by rates fitted to times measured on the device, which
 * backends keep. Pure arithmetic: nothing here runs a kernel.
 */
import type { Backend } from '../core/backend.js';
import { ArgumentError } from '../core/errors.js';

/** What a time is predicted for: the forward pass alone, or with the gradients of all operands. */
export type Pass = 'fwd' | 'fwdbwd';

/**
 * Kinds of steps that plans are made of; one kind costs alike wherever it stands.
 * - `weave`: weights of all tasks as one product with a shared basis.
 * - `apply`: one product per task.
 * - `outer`: (code ⊗ x), written once.
 * - `contract`: all rows times one shared matrix.
 * - `pass`: an elementwise pass or a copy.
 * - `weaveTile`, `applyTile`: both, tile by tile, so that no weight is written; the backward pass weaves again.
 * - `pairs`: sums over all pairs of an element of a code and one of a row, which are written nowhere.
 */
export type StepKind =
  | 'weave'
  | 'apply'
  | 'outer'
  | 'contract'
  | 'pass'
  | 'weaveTile'
  | 'applyTile'
  | 'pairs';

/** One kernel of a plan. */
export interface PlanStep {
  readonly what: string;
  readonly kind: StepKind;
  /** Products of its own (one per task), and rows of results over all of them. */
  readonly tasks: number;
  readonly lines: number;
  readonly flops: number;
  readonly bytes: number;
}

/** Seconds by kind and pass for one of each of `FEATURES`. */
export type Rates = Readonly<Record<Pass, Readonly<Partial<Record<StepKind, readonly number[]>>>>>;

/** What predictions are made of. */
export interface Machine {
  /** Sustained f32 operations per second of a large product. */
  readonly flops: number;
  /** Sustained bytes per second between memory and the kernel. */
  readonly bandwidth: number;
  /** Seconds one kernel costs beside its work. */
  readonly launch: number;
  /** Share of `flops` that the kernels reach which make no weights (kinds weaveTile, applyTile and pairs). */
  readonly fused?: number;
  /** Fitted to measurements; a kind that is not there costs what the roofline says. */
  readonly rates?: Rates;
}

/** A backend that keeps rates measured on its device. */
export interface Rated {
  readonly rates: Rates | null;
}

/** What a step's time is a sum of. Bytes up to NEAR, then up to FAR, then beyond: the caches of most machines. */
export const FEATURES = ['launch', 'tasks', 'lines', 'flops', 'near', 'middle', 'far'] as const;
const NEAR = 1e6;
const FAR = 16e6;

const featuresOf = ({ tasks, lines, flops, bytes }: PlanStep): number[] => [
  1,
  tasks,
  lines,
  flops,
  Math.min(bytes, NEAR),
  Math.max(0, Math.min(bytes, FAR) - NEAR),
  Math.max(0, bytes - FAR),
];

/** Round figures by backend: one AVX-512 server core, a data-centre GPU, an adapter that runs on a core, plain TypeScript. */
export const machines: Readonly<Record<string, Machine>> = {
  cpu: { flops: 120e9, bandwidth: 40e9, launch: 2e-6, fused: 0.9 },
  webgpu: { flops: 20e12, bandwidth: 2e12, launch: 4e-6, fused: 0.5 },
  software: { flops: 10e9, bandwidth: 2e9, launch: 30e-6, fused: 0.1 },
  ref: { flops: 0.3e9, bandwidth: 4e9, launch: 1e-6, fused: 0.5 },
};

const known = new WeakMap<Backend, Machine>();

/** What is assumed of a backend: rates it keeps, else the round figures of its name, else those of `cpu`. */
export function machineOf(backend: Backend): Machine {
  let machine = known.get(backend);
  if (!machine) {
    const { rates = null } = backend as Backend & Partial<Rated>;
    const name = backend.describe().software ? 'software' : backend.name;
    machine = { ...(machines[name] ?? machines.cpu), ...(rates && { rates }) };
    known.set(backend, machine);
  }
  return machine;
}

/**
 * Predicted seconds of a step. By the roofline the gradients cost twice what the step itself does, and that again
 * where they weave anew.
 */
export function secondsOf(step: PlanStep, machine: Machine, pass: Pass): number {
  const { flops, bandwidth, launch, fused = 1, rates } = machine;
  const fitted = rates?.[pass][step.kind];
  if (fitted) return featuresOf(step).reduce((sum, x, i) => sum + x * fitted[i], 0);
  const runs = pass === 'fwd' ? 1 : step.kind === 'weaveTile' ? 4 : 3;
  const reached = flops * (/Tile|pairs/.test(step.kind) ? fused : 1);
  return runs * (launch + Math.max(step.flops / reached, step.bytes / bandwidth));
}

/** A plan that was measured. */
export interface Sample {
  readonly pass: Pass;
  readonly steps: readonly PlanStep[];
  readonly seconds: number;
}

const SWEEPS = 3000;

/**
 * Rates none of which is negative, with the least sum of squared relative errors over the samples (non-negative least
 * squares by coordinate descent: Franc, Hlaváč, Navara, CAIP 2005). Kinds and passes without a sample are left out.
 */
export function fitRates(samples: readonly Sample[]): Rates {
  const ratesOf = (pass: Pass) => {
    const mine = samples.filter(sample => sample.pass === pass && sample.seconds > 0);
    const kinds = [...new Set(mine.flatMap(({ steps }) => steps.map(({ kind }) => kind)))];
    const size = FEATURES.length;
    const rows = mine.map(({ steps, seconds }) => {
      const row = new Float64Array(kinds.length * size);
      for (const step of steps)
        for (const [i, x] of featuresOf(step).entries())
          row[kinds.indexOf(step.kind) * size + i] += x / seconds;
      return row;
    });
    const rates = leastSquares(rows, kinds.length * size);
    return Object.fromEntries(kinds.map((kind, k) => [kind, rates.slice(k * size, (k + 1) * size)]));
  };
  return { fwd: ratesOf('fwd'), fwdbwd: ratesOf('fwdbwd') };
}

/** x >= 0 of least |rows · x - 1|². */
function leastSquares(rows: readonly Float64Array[], n: number): number[] {
  const x = new Array<number>(n).fill(0);
  const rest = new Float64Array(rows.length).fill(1);
  const squares = x.map((_, j) => rows.reduce((sum, row) => sum + row[j] * row[j], 0));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    let moved = 0;
    for (let j = 0; j < n; j++) {
      if (squares[j] === 0) continue;
      const slope = rows.reduce((sum, row, i) => sum + row[j] * rest[i], 0);
      const next = Math.max(0, x[j] + slope / squares[j]);
      const step = next - x[j];
      if (step === 0) continue;
      x[j] = next;
      for (let i = 0; i < rows.length; i++) rest[i] -= step * rows[i][j];
      moved = Math.max(moved, step * step * squares[j]);
    }
    if (moved < 1e-16 * rows.length) break;
  }
  return x;
}

/** The rates that a file's JSON holds. Throws ArgumentError where they are none. */
export function readRates(json: unknown): Rates {
  const bad = (why: string) => new ArgumentError(`rates: ${why}`);
  const passes = json as Rates | null;
  for (const pass of ['fwd', 'fwdbwd'] as const) {
    const kinds = passes?.[pass];
    if (typeof kinds !== 'object' || kinds === null) throw bad(`no '${pass}'`);
    for (const [kind, list] of Object.entries(kinds))
      if (list.length !== FEATURES.length || !list.every(x => x >= 0 && x < Infinity))
        throw bad(`'${kind}' must be ${FEATURES.length} numbers from 0, got ${JSON.stringify(list)}`);
  }
  return passes!;
}
