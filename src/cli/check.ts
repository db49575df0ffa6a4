/**
 * What it means that an op is right: its values and its first and second derivatives on a backend agree with float64,
 * and the float64 derivatives agree with finite differences. Knows rows of the case table and nothing of the terminal.
 */
import { cases, type Input, type Row, type Tolerance } from '../../tests/cases.js';
import { createRef } from '../backends/ref.js';
import type { Backend, TypedArray } from '../core/backend.js';
import { grad } from '../core/grad.js';
import type { Shape } from '../core/shape.js';
import { scope, type Tensor, withBackend } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { Stream } from '../data/stream.js';
import { add, mul, square, sum, tensor } from '../ops/index.js';
import { compile } from '../program/compile.js';

/** An error and the bound it must not pass. `error` is null where a value was not finite or the op threw. */
export interface Measured {
  readonly error: number | null;
  readonly bound: number;
}

/** The worst errors of one op over its rows; null for derivatives it has not. */
export interface OpReport {
  readonly name: string;
  readonly value: Measured;
  readonly gradient: Measured | null;
  readonly second: Measured | null;
  /** Why the op could not be run at all. */
  readonly reason?: string;
}

const KINDS = ['value', 'gradient', 'second'] as const;
type Kind = (typeof KINDS)[number];
type Findings = Partial<Record<Kind, Measured>>;

/** Relative bound for derivatives against finite differences in float64. */
export const DIFFERENCES_BOUND = 1e-6;
const STEP = 1e-3;
const DIRECTIONS = 2;

/** Float64 storage, under a name of its own so that falsifying an op on `ref` does not reach it. */
export const oracle: Backend = { ...createRef({ float: 64 }), name: 'oracle' };

/** True if the error is within its bound. */
export const within = ({ error, bound }: Measured): boolean => error !== null && error <= bound;

/** True if every error of the report is within its bound. */
export const passed = (report: OpReport): boolean =>
  KINDS.every(kind => report[kind] === null || within(report[kind]));

/** Host values of a row's operands, the same on every machine. */
function drawInputs(inputs: readonly Input[], seed: readonly number[]) {
  return inputs.map((input, i) => input(new Stream(...seed, i)));
}
type Operands = ReturnType<typeof drawInputs>;

const seedOf = (name: string, index: number) => [
  [...name].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) >>> 0, 7),
  index,
];

/** The operands of a row on the backend in use. */
export const operandsOf = (name: string, index: number): Tensor[] =>
  drawInputs(cases[name][index].inputs, seedOf(name, index)).map(({ values, shape }) =>
    tensor(values, shape),
  );

/** Fixed numbers in [-1, 1) as weights or directions: `role` tells those of one row apart. */
function drawn(shape: Shape, seed: readonly number[], role: number, i: number): Tensor {
  const stream = new Stream(...seed, 1000 + role, i);
  const n = shape.reduce((m, d) => m * d, 1);
  return tensor(
    Float64Array.from({ length: n }, () => 2 * stream.uniform() - 1),
    shape,
  );
}

/** A row bound to its seed: functions of the operands that are differentiated. */
function functionsOf(row: Row, seed: readonly number[], operands: Operands) {
  const varied = operands.flatMap(({ values, fixed }, i) =>
    values instanceof Float32Array && !fixed ? [i] : [],
  );
  /** Tensors of the operands; those differentiated moved by `steps[i]`. */
  const place = (steps?: readonly Float64Array[]) => {
    const all = operands.map(({ values, shape }) => tensor(values, shape));
    steps?.forEach((step, k) => {
      const { values, shape } = operands[varied[k]];
      all[varied[k]] = tensor(
        Float64Array.from(values, (v, i) => v + step[i]),
        shape,
      );
    });
    return { all, xs: varied.map(i => all[i]) };
  };
  const value = (xs: Tensor[], all: Tensor[]) =>
    tree.leaves<Tensor>(row.call(...all.map((x, i) => xs[varied.indexOf(i)] ?? x)));
  /** A scalar in which every output counts linearly and squared, so that linear ops have a second derivative. */
  const loss = (xs: Tensor[], all: Tensor[]) =>
    value(xs, all)
      .filter(y => y.dtype === 'f32')
      .map((y, i) => sum(mul(drawn(y.shape, seed, 0, i), add(y, mul(square(y), 0.5)))))
      .reduce((a, b) => add(a, b));
  const gradient = grad(loss, { unused: 'zeros' });
  /** The gradient along a fixed direction, a scalar again. */
  const slope = (xs: Tensor[], all: Tensor[]) =>
    gradient(xs, all)
      .map((g, i) => sum(mul(g, drawn(g.shape, seed, 1, i))))
      .reduce((a, b) => add(a, b));
  return { varied, place, loss, slope, value, gradient, second: grad(slope, { unused: 'zeros' }) };
}
type Functions = ReturnType<typeof functionsOf>;

/** Values, gradient and second gradient of a row on one backend, op by op or as one program, as host arrays. */
async function evaluate(
  functions: Functions,
  backend: Backend,
  wanted: readonly Kind[],
  compiled = false,
): Promise<Record<Kind, TypedArray[]>> {
  const run = (all: Tensor[]) => {
    const xs = functions.varied.map(i => all[i]);
    return wanted.map(kind => functions[kind](xs, all));
  };
  const program = compiled ? compile(run) : null;
  const results = withBackend(backend, () => scope(() => (program ?? run)(functions.place().all)));
  const found: Record<Kind, TypedArray[]> = { value: [], gradient: [], second: [] };
  try {
    for (const [i, kind] of wanted.entries()) found[kind] = await Promise.all(results[i].map(x => x.data()));
  } finally {
    for (const x of results.flat()) x.dispose();
    program?.dispose();
  }
  return found;
}

/** Below this size of a tensor's values the error is absolute in it. */
const FLOOR = 1e-3;

/** Largest error, relative to the larger of the wanted value and the mean size of its tensor. */
export function errorOf(got: readonly TypedArray[], want: readonly TypedArray[]): number | null {
  let worst = 0;
  for (const [k, wanted] of want.entries()) {
    if (got[k]?.length !== wanted.length) return null;
    let total = 0;
    let finite = 0;
    for (const v of wanted)
      if (Number.isFinite(v)) {
        total += Math.abs(v);
        finite++;
      }
    const mean = finite > 0 ? total / finite : 0;
    for (let i = 0; i < wanted.length; i++) {
      const g = got[k][i];
      const w = wanted[i];
      if (g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
      const error = Math.abs(g - w) / Math.max(Math.abs(w), mean, FLOOR);
      if (!Number.isFinite(error)) return null;
      worst = Math.max(worst, error);
    }
  }
  return worst;
}

const wantedKinds = ({ varied }: Functions, { gradient, second }: Tolerance): Kind[] =>
  KINDS.slice(0, varied.length === 0 || gradient === undefined ? 1 : second === undefined ? 2 : 3);

/** Errors of one row on a backend against float64. Throws what the op throws. */
async function againstOracle(name: string, index: number, row: Row, backend: Backend): Promise<Findings> {
  const seed = seedOf(name, index);
  const functions = functionsOf(row, seed, drawInputs(row.inputs, seed));
  const wanted = wantedKinds(functions, row.tolerance);
  const want = await evaluate(functions, oracle, wanted);
  const got = await evaluate(functions, backend, wanted);
  return Object.fromEntries(
    wanted.map(kind => [kind, { error: errorOf(got[kind], want[kind]), bound: row.tolerance[kind]! }]),
  );
}

/** Largest error of a row's values and derivatives as one compiled program, against the same run op by op. */
export async function compiledAgainstEager(
  name: string,
  index: number,
  row: Row,
  backend: Backend,
): Promise<number | null> {
  const seed = seedOf(name, index);
  const functions = functionsOf(row, seed, drawInputs(row.inputs, seed));
  const wanted = wantedKinds(functions, row.tolerance);
  const eager = await evaluate(functions, backend, wanted);
  const compiled = await evaluate(functions, backend, wanted, true);
  return errorOf(
    wanted.flatMap(kind => compiled[kind]),
    wanted.flatMap(kind => eager[kind]),
  );
}

/**
 * Errors of one row's float64 derivatives against central differences of fourth order along random directions,
 * relative to the root of the summed squares of the derivative's terms.
 */
export async function againstDifferences(name: string, index: number, row: Row): Promise<Findings> {
  const seed = seedOf(name, index);
  const operands = drawInputs(row.inputs, seed);
  const functions = functionsOf(row, seed, operands);
  const findings: Findings = {};
  for (const kind of wantedKinds(functions, row.tolerance).slice(1)) {
    const f = kind === 'gradient' ? functions.loss : functions.slope;
    const { [kind]: derivative } = await evaluate(functions, oracle, [kind]);
    let worst: number | null = 0;
    for (let d = 0; d < DIRECTIONS; d++) {
      const direction = functions.varied.map((at, i) => {
        const stream = new Stream(...seed, 2000 + d, i);
        return Float64Array.from(operands[at].values, () => 2 * stream.uniform() - 1);
      });
      const at = (t: number) =>
        withBackend(oracle, () => {
          const { all, xs } = functions.place(direction.map(step => step.map(v => v * t * STEP)));
          return f(xs, all).dataSync()[0];
        });
      const difference = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * STEP);
      const terms = derivative.flatMap((g, i) => Array.from(g, (v, j) => v * direction[i][j]));
      const analytic = terms.reduce((a, b) => a + b, 0);
      const size = Math.hypot(...terms) || 1;
      const error = Math.abs(difference - analytic) / Math.max(size, Math.abs(analytic));
      worst = worst !== null && Number.isFinite(error) ? Math.max(worst, error) : null;
    }
    findings[kind] = { error: worst, bound: DIFFERENCES_BOUND };
  }
  return findings;
}

/** The one nearer to failing (or further beyond its bound). */
function worse(a: Measured | null, b: Measured): Measured {
  const excess = ({ error, bound }: Measured) =>
    error === null ? Infinity : error === 0 ? 0 : error / bound;
  return a === null || excess(b) > excess(a) ? b : a;
}

/**
 * The worst errors of one op over its rows. On `ref`, which the other backends are not asked to agree with, the
 * derivatives are also those of float64 against finite differences. An op that throws is reported, not thrown.
 */
export async function checkOp(name: string, backend: Backend): Promise<OpReport> {
  const report: Record<Kind, Measured | null> = { value: null, gradient: null, second: null };
  for (const [index, row] of cases[name].entries()) {
    try {
      const findings = [await againstOracle(name, index, row, backend)];
      if (backend.name === 'ref') findings.push(await againstDifferences(name, index, row));
      for (const finding of findings)
        for (const kind of KINDS) if (finding[kind]) report[kind] = worse(report[kind], finding[kind]);
    } catch (error) {
      const value = { error: null, bound: row.tolerance.value };
      const reason = `row ${index}: ${error instanceof Error ? error.message : String(error)}`;
      return { name, ...report, value, reason };
    }
  }
  return { name, ...report, value: report.value! };
}
