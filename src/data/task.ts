import { ArgumentError, DataError } from '../core/errors.js';
import { Stream } from './stream.js';

/** Tasks of different splits are drawn from different streams, and from different classes where there are classes. */
export type Split = 'train' | 'validation' | 'test';
const SPLIT_WORD: Record<Split, number> = { train: 0, validation: 1, test: 2 };

/** Targets of regression are Float32Array [.., outSize], of classification Int32Array labels in [0, outSize). */
export type Targets = Float32Array | Int32Array;

/** `n` rows (per task) of inputs and targets, dense and row-major. */
export interface Rows<Y extends Targets = Targets> {
  readonly n: number;
  /** [n, ...inShape], or [tasks, n, ...inShape] in a batch. */
  readonly x: Float32Array;
  /** [n, outSize] or labels [n]; in a batch with a leading task axis. */
  readonly y: Y;
}

/** The place one task is written to: all arrays are zero, and windows of a batch. */
export interface Task<Y extends Targets = Targets> {
  readonly support: Rows<Y>;
  readonly query: Rows<Y>;
  /** [latentSize]: the numbers that made the task, where the family has such numbers. */
  readonly latent: Float32Array;
}

interface Family<Y extends Targets> {
  readonly name: string;
  /** Shape of one row of x: [1] for a scalar, [28, 28, 1] for an image. */
  readonly inShape: readonly number[];
  /** Values in one row of y, or the number of classes (ways). */
  readonly outSize: number;
  /** Support rows that suit the family, where a run is not told: per task for regression, per class for classes. */
  readonly shots?: number;
  /** How many numbers describe a task completely, for conditioning on the truth; 0 or absent: none. */
  readonly latentSize?: number;
  /**
   * Draws one task: fills every row of support and query (and latent). All randomness must come from `stream`, so
   * that the task is a pure function of (seed, split, index). For classification the rows are grouped by class:
   * rows [c * k, (c + 1) * k) have label c, k being shots in the support set and queries in the query set.
   */
  draw(task: Task<Y>, stream: Stream, split: Split): void;
}

export interface RegressionFamily extends Family<Float32Array> {
  readonly kind: 'regression';
}
export interface ClassificationFamily extends Family<Int32Array> {
  readonly kind: 'classification';
}

/**
 * A distribution over tasks. The built-in ones and a user's module implement this and nothing else; a module for
 * `weightloom train ./task.mjs` has one as its default export:
 *
 * ```js
 * export default {
 *   name: 'lines', kind: 'regression', inShape: [1], outSize: 1,
 *   draw({ support, query }, stream) {
 *     const slope = stream.normal();
 *     for (const { n, x, y } of [support, query])
 *       for (let i = 0; i < n; i++) y[i] = slope * (x[i] = stream.normal());
 *   },
 * };
 * ```
 */
export type TaskFamily = RegressionFamily | ClassificationFamily;

/** Which tasks to draw. Rows are counted per task for regression, per task and class for classification. */
export interface BatchRequest {
  readonly split: Split;
  readonly seed: number;
  /** Index of the first task. Step s of a training run with T tasks a step asks for `first: s * T`. */
  readonly first: number;
  readonly tasks: number;
  /** Support rows. */
  readonly shots: number;
  /** Query rows. */
  readonly queries: number;
}

/** `tasks` tasks of equal size, stacked along a leading axis. */
export interface TaskBatch<Y extends Targets = Targets> {
  readonly tasks: number;
  readonly shots: number;
  readonly queries: number;
  readonly inShape: readonly number[];
  readonly outSize: number;
  readonly support: Rows<Y>;
  readonly query: Rows<Y>;
  /** [tasks, latentSize]; empty where the family has none. */
  readonly latent: Float32Array;
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/**
 * Draws tasks `first .. first + tasks - 1`. Each task has a stream of its own, named (seed, split, index): it does
 * not depend on the size of the batch it is drawn in, and a resumed run sees the tasks it would have seen.
 *
 * @throws ArgumentError if a count of the request is not a positive integer (`first` and `queries` may be 0).
 * @throws DataError if a family writes a label outside [0, outSize).
 */
export function drawBatch(family: RegressionFamily, request: BatchRequest): TaskBatch<Float32Array>;
export function drawBatch(family: ClassificationFamily, request: BatchRequest): TaskBatch<Int32Array>;
export function drawBatch(family: TaskFamily, request: BatchRequest): TaskBatch;
export function drawBatch(family: TaskFamily, request: BatchRequest): TaskBatch {
  for (const [name, least] of [
    ['first', 0],
    ['tasks', 1],
    ['shots', 1],
    ['queries', 0],
  ] as const)
    if (!Number.isSafeInteger(request[name]) || request[name] < least)
      throw new ArgumentError(`drawBatch: ${name} must be an integer >= ${least}, got ${request[name]}`);
  return family.kind === 'regression'
    ? fill(family, request, 1, family.outSize, n => new Float32Array(n))
    : checkLabels(
        fill(family, request, family.outSize, 1, n => new Int32Array(n)),
        family.name,
      );
}

function fill<Y extends Targets>(
  family: Family<Y>,
  { split, seed, first, tasks, shots, queries }: BatchRequest,
  groups: number,
  width: number,
  targets: (n: number) => Y,
): TaskBatch<Y> {
  const inSize = product(family.inShape);
  const latentSize = family.latentSize ?? 0;
  const rows = (n: number): Rows<Y> => ({
    n,
    x: new Float32Array(tasks * n * inSize),
    y: targets(tasks * n * width),
  });
  const window = ({ n, x, y }: Rows<Y>, t: number): Rows<Y> => ({
    n,
    x: x.subarray(t * n * inSize, (t + 1) * n * inSize),
    y: y.subarray(t * n * width, (t + 1) * n * width) as Y,
  });
  const support = rows(groups * shots);
  const query = rows(groups * queries);
  const latent = new Float32Array(tasks * latentSize);
  for (let t = 0; t < tasks; t++) {
    const task = {
      support: window(support, t),
      query: window(query, t),
      latent: latent.subarray(t * latentSize, (t + 1) * latentSize),
    };
    family.draw(task, new Stream(seed, SPLIT_WORD[split], first + t), split);
  }
  return {
    tasks,
    shots,
    queries,
    inShape: family.inShape,
    outSize: family.outSize,
    support,
    query,
    latent,
  };
}

function checkLabels(batch: TaskBatch<Int32Array>, name: string): TaskBatch<Int32Array> {
  for (const { y } of [batch.support, batch.query])
    for (const label of y)
      if (label < 0 || label >= batch.outSize)
        throw new DataError(`task family ${name}: label ${label} is outside [0, ${batch.outSize})`);
  return batch;
}

/**
 * Checks what a user's module exports before anything is built on it.
 *
 * @param origin where the value came from, for the message.
 * @throws ArgumentError naming the first field that is missing or of another type.
 */
export function asTaskFamily(value: unknown, origin: string): TaskFamily {
  const refuse = (what: string): never => {
    throw new ArgumentError(`${origin}: a task family needs ${what}`);
  };
  if (typeof value !== 'object' || value === null) return refuse('to be an object (the default export)');
  const { name, kind, inShape, outSize, shots, latentSize, draw } = value as Record<string, unknown>;
  const count = (x: unknown, least: number) => Number.isSafeInteger(x) && (x as number) >= least;
  if (typeof name !== 'string' || name === '') refuse('name: a non-empty string');
  if (kind !== 'regression' && kind !== 'classification') refuse("kind: 'regression' or 'classification'");
  if (!Array.isArray(inShape) || !inShape.every(d => count(d, 1)))
    refuse('inShape: an array of positive integers');
  if (!count(outSize, 1)) refuse('outSize: a positive integer');
  if (shots !== undefined && !count(shots, 1)) refuse('shots: a positive integer, or none');
  if (latentSize !== undefined && !count(latentSize, 0)) refuse('latentSize: an integer >= 0, or none');
  if (typeof draw !== 'function') refuse('draw(task, stream, split): a function');
  return value as TaskFamily;
}
