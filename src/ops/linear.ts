/**
 * Linear layers: one weight for all rows, one per task, or one generated per task; rows of tasks in equal numbers, or
 * ragged. Composed of products whose derivatives are products, so derivatives of every order exist under every plan.
 */

import type { Backend } from '../core/backend.js';
import { ArgumentError, ShapeError } from '../core/errors.js';
import { type Shape, show, sizeOf } from '../core/shape.js';
import { Tensor, withBackend } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { type LinearPlan, type PlanOptions, planLinear, type Strategy } from '../program/plan.js';
import { machineOf } from '../program/rates.js';
import { concat } from './concat.js';
import { full, tensor } from './create.js';
import { checkpoint } from './custom.js';
import { add, mul, sub } from './elementwise.js';
import { generateApply } from './generate.js';
import {
  ChunkedGenerated,
  FastGenerated,
  FullGenerated,
  Generated,
  LowRankGenerated,
  materialise,
  plain,
  projections,
  type Weight,
  weaveProjection,
} from './generated.js';
import { matmul } from './matmul.js';
import { raggedMatmul } from './ragged.js';
import { unpack } from './unpack.js';
import { expand, reshape, transpose } from './views.js';

/** Task t owns rows `rows[t] .. rows[t+1]-1`: i32 `[T+1]`, from 0 to the number of rows. */
export type Rows = Tensor | Int32Array;

export interface LinearOptions {
  /** Given, `x` is `[N,i]` and its rows belong to tasks in unequal numbers. */
  readonly rows?: Rows;
  /** How a generated weight is applied; the planner decides unless given. */
  readonly strategy?: Strategy;
}

/** Offsets as a tensor, host values on `backend`. Throws ShapeError if host values do not ascend from 0. */
export function offsetsOf(rows: Rows, backend: Backend): Tensor {
  if (rows instanceof Tensor) return rows;
  for (let t = 0; t < rows.length; t++)
    if (t === 0 ? rows[0] !== 0 : rows[t] < rows[t - 1])
      throw new ShapeError(`rows: offsets must ascend from 0, got ${show([...rows.slice(0, t + 1)])}`);
  return withBackend(backend, () => tensor(rows));
}

/** Values per task `[T,c]` repeated for each of the task's rows: `[N,c]`. */
const spreadToRows = (perTask: Tensor, rows: Tensor, count: number): Tensor =>
  raggedMatmul(full([count, 1], 1, perTask.backend), expand(perTask, 1), rows);

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

function applyWeight(x: Tensor, w: Weight, rows: Tensor | undefined, strategy?: Strategy): Tensor {
  if (!(w instanceof Generated)) {
    if (rows && w.rank === 3) return raggedMatmul(x, w, rows);
    if (w.rank === 2) return x.rank === 1 ? reshape(matmul(expand(x, 0), w), [w.shape[1]]) : matmul(x, w);
    return byTask(x, merged => matmul(merged, w));
  }
  if (w instanceof FastGenerated) return adapted(x, w, rows, strategy);
  const perTask = rows ? x.shape[0] / Math.max(w.tasks, 1) : sizeOf(x.shape.slice(1, -1));
  const chosen = planOf(w, perTask, {
    strategy,
    machine: machineOf(x.backend),
    pass: x.deps === 0 ? undefined : 'fwdbwd',
    whole: rows !== undefined,
  });
  if (chosen.parts > 1) return inParts(x, w, chosen);
  if (chosen.strategy === 'materialise') return applyWeight(x, w.materialise(), rows);
  if (chosen.strategy === 'fused') return fused(x, w as FullGenerated, rows);
  return rows ? unwoven(x, w, rows) : byTask(x, merged => unwoven(merged, w, undefined));
}

/** x · start - Σ rate · (x · xₖᵀ) · δₖ: of K steps on S rows, K·S columns stand for a W per task. */
function adapted(x: Tensor, w: FastGenerated, rows: Tensor | undefined, strategy?: Strategy): Tensor {
  if (rows)
    throw new ArgumentError(
      'linear: an adapted weight knows which task a row belongs to by its place; give every task as many rows, or materialise it',
    );
  if (strategy === 'materialise') return byTask(x, merged => matmul(merged, w.materialise()));
  return byTask(x, merged => {
    const first = applyWeight(merged, w.start, undefined, strategy);
    const y = w.steps.reduce(
      (y, { x: read, delta, rate }) => sub(y, mul(matmul(matmul(merged, transpose(read)), delta), rate)),
      first,
    );
    return w.watch ? w.watch(merged, y) : y;
  });
}

/** Tiles of W made and applied in one op. */
function fused(x: Tensor, { code, basis, base }: FullGenerated, rows: Tensor | undefined): Tensor {
  const merged = x.rank === 2 ? x : reshape(x, [sizeOf(x.shape.slice(0, -1)), x.shape[x.rank - 1]]);
  const y = generateApply({ code, basis, base, x: merged, offsets: rows });
  return x.rank === 2 ? y : reshape(y, [...x.shape.slice(0, -1), y.shape[1]]);
}

/** What a generated weight is made of: what each task has its own of, and what all share. */
function partsOf(w: Generated): {
  own: Tensor[];
  shared: Tensor[];
  make(own: Tensor[], shared: Tensor[]): Generated;
} {
  const { base } = w as FullGenerated;
  const shared = base ? [base] : [];
  if (w instanceof LowRankGenerated)
    return {
      own: [w.a, w.b],
      shared,
      make: ([a, b], [base = null]) => new LowRankGenerated(a, b, w.scale, base, w.weightShape),
    };
  const { code, basis } = w as FullGenerated | ChunkedGenerated;
  return {
    own: [code],
    shared: [basis, ...shared],
    make: ([code], [basis, base = null]) =>
      w instanceof ChunkedGenerated
        ? new ChunkedGenerated(code, basis, w.weightShape, base, w.start)
        : new FullGenerated(code, basis, base),
  };
}

/** Some tasks after the others, so that the weights of few are there at a time; gradients make them again. */
function inParts(x: Tensor, w: Generated, { strategy, parts }: LinearPlan): Tensor {
  const { own, shared, make } = partsOf(w);
  const most = Math.ceil(w.tasks / parts);
  const sizes = Array.from({ length: Math.ceil(w.tasks / most) }, (_, k) =>
    Math.min(most, w.tasks - k * most),
  );
  const cut = own.map(part => unpack(part, sizes, 0));
  const run = checkpoint((x: Tensor, own: Tensor[], shared: Tensor[]) =>
    applyWeight(x, make(own, shared), undefined, strategy),
  );
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
function byTask(x: Tensor, f: (merged: Tensor) => Tensor): Tensor {
  if (x.rank === 3) return f(x);
  const y = f(reshape(x, [x.shape[0], sizeOf(x.shape.slice(1, -1)), x.shape[x.rank - 1]]));
  return reshape(y, [...x.shape.slice(0, -1), y.shape[2]]);
}

/** The plans that make no W, for x `[T,n,i]`, or `[N,i]` with rows. */
function unwoven(x: Tensor, w: Generated, rows: Tensor | undefined): Tensor {
  const times = (v: Tensor, m: Tensor) => (rows ? raggedMatmul(v, m, rows) : matmul(v, m));
  let y: Tensor;
  if (w instanceof LowRankGenerated) {
    y = times(times(x, w.a), w.b);
    if (w.scale !== 1) y = mul(y, w.scale);
  } else if (w instanceof FullGenerated) {
    const [E, i, o] = w.basis.shape;
    const code = rows ? spreadToRows(w.code, rows, x.shape[0]) : expand(w.code, 1);
    const outer = mul(expand(code, -1), expand(x, -2));
    y = matmul(reshape(outer, [...x.shape.slice(0, -1), E * i]), reshape(w.basis, [E * i, o]));
  } else throw new ArgumentError(`linear: ${w} can only be materialised`);
  const base = w instanceof FullGenerated || w instanceof LowRankGenerated ? w.base : null;
  return base ? add(y, matmul(x, base)) : y;
}

/**
 * How `linear` would apply a generated weight to `rows` rows of each task: the choice, its cost and what it beat. Unless
 * told for which pass, it plans for gradients too where the weight carries one.
 * Throws ShapeError for a weight that is no matrix.
 */
export function planOf(w: Generated, rows: number, options: PlanOptions = {}): LinearPlan {
  if (w instanceof FastGenerated)
    throw new ArgumentError('planOf: an adapted weight is applied by the plan of its start, and its steps');
  const { tasks, weightShape } = w;
  const { own, shared } = partsOf(w);
  const carries = [...own, ...shared].some(({ deps }) => deps !== 0);
  const planned: PlanOptions = { ...options, pass: options.pass ?? (carries ? 'fwdbwd' : 'fwd') };
  if (weightShape.length !== 2)
    throw new ShapeError(`planOf: ${show(weightShape)} is no matrix; only materialise applies it`);
  const [i, out] = weightShape;
  const sizes = { tasks, rows, in: i, out };
  if (w instanceof FullGenerated)
    return planLinear(
      {
        kind: 'full',
        ...sizes,
        code: w.code.shape[1],
        base: w.base !== null,
        windowed: w.projection !== null,
      },
      planned,
    );
  if (w instanceof LowRankGenerated)
    return planLinear({ kind: 'lowRank', ...sizes, code: w.a.shape[2], base: w.base !== null }, planned);
  const { code, basis, base } = w as ChunkedGenerated;
  return planLinear(
    {
      kind: 'chunked',
      ...sizes,
      code: code.shape[2],
      chunks: code.shape[1],
      chunk: basis.shape[1],
      base: base !== null,
    },
    planned,
  );
}

/**
 * The tree with those generated weights materialised for which that is the plan at `rows` rows per task: all pieces of
 * a projection by one product where each of its matrices would be materialised anyway. The others stay generated.
 */
export function weave<T>(theta: T, rows: number, options: PlanOptions = {}): T {
  if (options.strategy === 'materialise') return materialise(theta) as T;
  const woven = new Map<unknown, Tensor>();
  for (const pieces of projections(theta)) {
    const matrices = pieces.filter(w => w.weightShape.length === 2);
    const whole = (w: FullGenerated) => {
      const { strategy, parts } = planOf(w, rows, options);
      return strategy === 'materialise' && parts === 1;
    };
    if (matrices.every(whole)) for (const [piece, w] of weaveProjection(pieces)) woven.set(piece, w);
  }
  return woven.size === 0 ? theta : tree.map(leaf => woven.get(leaf) ?? leaf, theta);
}
