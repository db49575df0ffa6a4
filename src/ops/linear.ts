/**
 * Linear layers: one weight for all rows, one per task, or one generated per task; rows of tasks in equal numbers, or
 * ragged. Composed of products whose derivatives are products, so derivatives of every order exist under every plan.
 */

import type { Backend } from '../core/backend.js';
import { ShapeError } from '../core/errors.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import { Tensor, withBackend } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import {
  choose,
  type LinearPlan,
  type LinearShapes,
  type PlanOptions,
  planLinear,
  planning,
  type Strategy,
  strategiesFor,
  together,
} from '../program/plan.js';
import { machineOf } from '../program/rates.js';
import { concat } from './concat.js';
import { tensor } from './create.js';
import { checkpoint } from './custom.js';
import { add } from './elementwise.js';
import {
  Generated,
  materialise,
  plain,
  projections,
  spreadToRows,
  type Weight,
  weaveProjection,
} from './generated.js';
import { matmul } from './matmul.js';
import { raggedMatmul } from './ragged.js';
import { unpack } from './unpack.js';
import { expand, reshape } from './views.js';

/** Task t owns rows `rows[t] .. rows[t+1]-1`: i32 `[T+1]`, from 0 to the number of rows. */
export type Rows = Tensor | Int32Array;

export interface LinearOptions {
  /** Given, `x` is `[N,i]` and its rows belong to tasks in unequal numbers. */
  readonly rows?: Rows;
  /** How a generated weight is applied; the planner decides unless given. */
  readonly strategy?: Preference;
}

/** A plan, or several in order of preference: each weight takes the first it has, or the planner's choice. */
export type Preference = Strategy | readonly Strategy[];

/** `PlanOptions` with plans in order of preference. */
export type LinearPlanOptions = Omit<PlanOptions, 'strategy'> & { readonly strategy?: Preference };

/** Offsets as a tensor, host values on `backend`. Throws ShapeError if host values do not ascend from 0. */
export function offsetsOf(rows: Rows, backend: Backend): Tensor {
  if (rows instanceof Tensor) return rows;
  for (let t = 0; t < rows.length; t++)
    if (t === 0 ? rows[0] !== 0 : rows[t] < rows[t - 1])
      throw new ShapeError(`rows: offsets must ascend from 0, got ${show([...rows.slice(0, t + 1)])}`);
  return withBackend(backend, () => tensor(rows));
}

/**
 * A vector of a layer (bias, scale) so that it broadcasts to `x`: `[c]` as it is; `[T,c]` or generated per task, for `x`
 * `[T,n,...,c]`, or `[N,...,c]` with rows. Throws ShapeError.
 */
export function vectorFor(x: Tensor, v: Weight, rows?: Tensor): Tensor {
  const vector = plain(v);
  if (vector.rank === 1) return vector;
  const [T, c] = vector.shape;
  const middle = x.shape.slice(1, -1).fill(1);
  if (vector.rank !== 2 || (rows ? rows.shape[0] !== T + 1 : x.rank < 3 || x.shape[0] !== T))
    throw new ShapeError(
      `a vector per task ${show(vector.shape)} does not fit ${show(x.shape)}${rows ? ` with rows ${show(rows.shape)}` : ''}`,
    );
  if (rows) return reshape(spreadToRows(vector, rows, x.shape[0]), [x.shape[0], ...middle, c]);
  return reshape(vector, [T, ...middle, c]);
}

/**
 * y = x · w + b.
 *
 * | w | x | y |
 * |---|---|---|
 * | `[i,o]`, for all | `[...,i]` | `[...,o]` |
 * | `[T,i,o]` or generated | `[T,...,i]` | `[T,...,o]` |
 * | `[T,i,o]` or generated, with `rows` | `[N,i]` | `[N,o]` |
 *
 * b is `[o]`, `[T,o]` or generated. All plans of a generated weight give the same values and derivatives up to
 * rounding. Throws ShapeError naming both shapes, ArgumentError for a strategy the weight does not have.
 */
export function linear(x: Tensor, w: Weight, b?: Weight | null, options: LinearOptions = {}): Tensor {
  const rows = options.rows && offsetsOf(options.rows, x.backend);
  const shape = w.shape;
  const tasks = shape.length === 3 ? shape[0] : null;
  const fits =
    (shape.length === 2 || tasks !== null) &&
    x.rank >= 1 &&
    x.shape[x.rank - 1] === shape[shape.length - 2] &&
    (!rows || (x.rank === 2 && rows.rank === 1 && (tasks === null || rows.shape[0] === tasks + 1))) &&
    (rows || tasks === null || (x.rank >= 3 && x.shape[0] === tasks));
  if (!fits)
    throw new ShapeError(`linear: x ${show(x.shape)} does not fit w ${show(shape)}; ${wanted(shape, rows)}`);
  const y = applyWeight(x, w, rows, options.strategy);
  return b ? add(y, vectorFor(y, b, rows)) : y;
}

function wanted(w: Shape, rows: Tensor | undefined): string {
  if (w.length !== 2 && w.length !== 3) return 'w must be [in,out], or [tasks,in,out]';
  const [i] = w.slice(-2);
  if (rows) return `with rows ${show(rows.shape)} x must be [N,${i}], and rows [tasks+1]`;
  return w.length === 2 ? `x must be [...,${i}]` : `x must be [${w[0]},n,${i}], or [N,${i}] with rows`;
}

/** x · w by the plan asked for, or the cheapest. */
export function applyWeight(x: Tensor, w: Weight, rows: Tensor | undefined, strategy?: Preference): Tensor {
  if (!(w instanceof Generated)) {
    if (rows && w.rank === 3) return raggedMatmul(x, w, rows);
    if (w.rank === 2) return x.rank === 1 ? reshape(matmul(expand(x, 0), w), [w.shape[1]]) : matmul(x, w);
    return byTask(x, merged => matmul(merged, w));
  }
  if (w.applyItself) return w.applyItself(x, { rows, strategy });
  const perTask = rows ? x.shape[0] / Math.max(w.tasks, 1) : sizeOf(x.shape.slice(1, -1));
  const chosen = planBy(choose, w, perTask, {
    strategy,
    machine: machineOf(x.backend),
    pass: x.deps === 0 ? undefined : 'fwdbwd',
    whole: rows !== undefined,
  });
  const by = chosen.strategy;
  if (chosen.parts > 1) return inParts(x, w, chosen.parts, (x, w) => applyWeight(x, w, undefined, by));
  if (by === 'materialise') return applyWeight(x, w.materialise(), rows);
  return rows ? w.unwoven(x, by, rows) : byTask(x, merged => w.unwoven(merged, by, undefined));
}

/** Some tasks after the others, so that the weights of few are there at a time; gradients make them again. */
export function inParts(
  x: Tensor,
  w: Generated,
  parts: number,
  f: (x: Tensor, w: Generated) => Tensor,
): Tensor {
  const { own, shared, make } = w.parts();
  const most = Math.ceil(w.tasks / parts);
  const sizes = Array.from({ length: Math.ceil(w.tasks / most) }, (_, k) =>
    Math.min(most, w.tasks - k * most),
  );
  const cut = own.map(part => unpack(part, sizes, 0));
  const run = checkpoint((x: Tensor, own: Tensor[], shared: readonly Tensor[]) => f(x, make(own, shared)));
  const ys = unpack(x, sizes, 0).map((x, k) =>
    run(
      x,
      cut.map(parts => parts[k]),
      shared,
    ),
  );
  return concat(ys, 0);
}

/** `[T,...,i]` as `[T,n,i]`, and the result back. */
export function byTask(x: Tensor, f: (merged: Tensor) => Tensor): Tensor {
  if (x.rank === 3) return f(x);
  const y = f(reshape(x, [x.shape[0], sizeOf(x.shape.slice(1, -1)), x.shape[x.rank - 1]]));
  return reshape(y, [...x.shape.slice(0, -1), y.shape[2]]);
}

/**
 * How `linear` would apply a generated weight to `rows` rows of each task: the choice, its cost and what it beat. Unless
 * told for which pass, it plans for gradients too where the weight carries one.
 * Filters `[kh,kw,c,o]` are planned as the matrix `[kh·kw·c,o]`, rows being the pixels they yield for each task.
 * Throws ShapeError for a vector, ArgumentError for an adapted weight.
 */
export const planOf = (w: Generated, rows: number, options: LinearPlanOptions = {}): LinearPlan =>
  planBy(planLinear, w, rows, options);

function planBy<P>(
  plan: (shapes: LinearShapes, options: PlanOptions) => P,
  w: Generated,
  rows: number,
  options: LinearPlanOptions,
): P {
  const { own, shared } = w.parts();
  const sizes = sizesOf(w, rows);
  const carries = [...own, ...shared].some(({ deps }) => deps !== 0);
  const { strategy: wanted } = options;
  const strategy = Array.isArray(wanted) ? wanted.find(way => strategiesFor(sizes).includes(way)) : wanted;
  return plan(sizes, { ...options, strategy, pass: options.pass ?? (carries ? 'fwdbwd' : 'fwd') });
}

/** The plans a generated weight has. Throws as `planOf`. */
export const plansFor = (w: Generated): readonly Strategy[] => strategiesFor(sizesOf(w, 1));

function sizesOf(w: Generated, rows: number): LinearShapes {
  const { tasks, weightShape: shape } = w;
  if (shape.length < 2)
    throw new ShapeError(
      `planOf: ${show(shape)} is no matrix; a vector is as long as a row of what it is added to, and is always materialised`,
    );
  return { ...w.sizes(), tasks, rows, in: sizeOf(shape.slice(0, -1)), out: shape[shape.length - 1] };
}

/**
 * The tree with the weights of those projections materialised, at `rows` rows per task, whose pieces cost less made by
 * one product than each by its own plan. The others stay generated.
 */
export function weave<T>(theta: T, rows: number, options: LinearPlanOptions = {}): T {
  if (options.strategy === 'materialise' && planning.maxBytes === Infinity) return materialise(theta) as T;
  const woven = new Map<unknown, Tensor>();
  for (const pieces of projections(theta)) {
    // How many rows filters have is not known here: unless told otherwise, they are materialised.
    const planned = pieces.filter(
      ({ weightShape: { length } }) => length === 2 || (length > 2 && options.strategy),
    );
    if (together(planned.map(w => planBy(choose, w, rows, options))))
      for (const [piece, w] of weaveProjection(pieces)) woven.set(piece, w);
  }
  return woven.size === 0 ? theta : tree.map(leaf => woven.get(leaf) ?? leaf, theta);
}
