/** Learning tasks one after the other, each seen once, and what is left of the old ones at the end. */
import { ArgumentError } from '../core/errors.js';
import { stopGradient } from '../core/grad.js';
import type { Shape } from '../core/shape.js';
import { scope, type Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { type LabelledImages, takeImages } from '../data/mnist.js';
import { Stream } from '../data/stream.js';
import type { Hypernet, HypernetParams } from '../hyper/index.js';
import { accuracy, crossEntropy, type Layer } from '../nn/index.js';
import { add, materialise, mul, split, square, stack, sub, sum, take, tensor } from '../ops/index.js';
import type { Transform } from '../optim/index.js';
import { compile } from '../program/compile.js';
import { type TrainingState, type TrainOptions, train } from './trainer.js';

/** One task of a sequence: its pictures to learn from, and those it is judged by. */
export interface ContinualTask {
  readonly train: LabelledImages;
  readonly test: LabelledImages;
}

/** A way to learn tasks in a sequence. Task numbers are i32 `[1]`. */
export interface ContinualLearner<P = any> {
  init(key: Tensor): P;
  /** Logits `[1, n, classes]` of the rows `x [1, n, ...inShape]` of one task. */
  predict(params: P, task: Tensor, x: Tensor): Tensor;
  /** How far what is known of task `old` is from what it was with the parameters `before`: a scalar, 0 if equal. */
  drift?(params: P, before: P, old: Tensor): Tensor;
}

/**
 * A hypernetwork conditioned on task numbers (`taskId`). What it must keep of old tasks is the weights it makes for
 * them: the drift is the squared distance of one old task's weights, an unbiased estimate of the regulariser of von
 * Oswald, Henning, Sacramento, Grewe, "Continual learning with hypernetworks", ICLR 2020 (their equation 2, without the
 * look-ahead), if the old task is drawn at random.
 */
export const continualHypernet = (hyper: Hypernet<Tensor>): ContinualLearner<HypernetParams> => {
  const weightsOf = (phi: HypernetParams, task: Tensor) => hyper.generate(phi, hyper.encode(phi, task));
  return {
    init: key => scope(() => hyper.init(key)),
    predict: (phi, task, x) => hyper.target.apply(weightsOf(phi, task), x),
    drift(phi, before, old) {
      const [now, then] = [phi, stopGradient(before)].map(p =>
        tree.leaves<Tensor>(materialise(weightsOf(p, old))),
      );
      return now.map((w, i) => sum(square(sub(w, then[i])))).reduce((a, b) => add(a, b));
    },
  };
};

/** A network of its own for each of `tasks` tasks: nothing is shared and nothing can be forgotten. */
export const separateNetworks = (target: Layer, inShape: Shape, tasks: number): ContinualLearner => ({
  init: key =>
    scope(() => {
      const networks = split(key, tasks).map(k => target.init(k, inShape));
      return tree.map((...copies: Tensor[]) => stack(copies), networks[0], ...networks.slice(1));
    }),
  predict: (params, task, x) =>
    target.apply(
      tree.map((w: Tensor) => take(w, task, 0), params),
      x,
    ),
});

/** A sequence of tasks and how it is learned. */
export interface ContinualTraining<P> {
  readonly tasks: readonly ContinualTask[];
  readonly learner: ContinualLearner<P>;
  /** Begins anew with every task. */
  readonly optimiser: Transform<any>;
  readonly stepsPerTask: number;
  /** Pictures per step. */
  readonly batch: number;
  /** Weight of the drift of one random old task; 0 lets the learner forget. */
  readonly keep: number;
  readonly seed: number;
}

/** A training state with what the current task is measured against. */
export interface ContinualState<P> extends TrainingState<P> {
  /** The parameters before the current task. */
  readonly before: P;
  /** Accuracy on every task just after it was learned, `[tasks]`; 0 for those to come. */
  readonly learned: Tensor;
}

/** The state before the first step. */
export const initialContinualState = <P>(
  { tasks, optimiser }: ContinualTraining<P>,
  params: P,
): ContinualState<P> => ({
  step: 0,
  params,
  optimiser: optimiser.init(params),
  before: params,
  learned: tensor(new Float32Array(tasks.length)),
});

/** As `TrainOptions`; the steps of all tasks are the run. */
export interface ContinualOptions<P> extends Omit<TrainOptions<P>, 'steps' | 'onCheckpoint'> {
  readonly onCheckpoint?: (state: ContinualState<P>) => Promise<void>;
  /** Told of every task that has been learned, with its accuracy then. */
  readonly onTask?: (task: number, accuracy: number) => void;
}

/** Learns the tasks in order, `stepsPerTask` steps each, from any state of the run. Rejects as `train` does. */
export async function trainContinual<P>(
  training: ContinualTraining<P>,
  start: ContinualState<P>,
  { onCheckpoint, onTask, ...options }: ContinualOptions<P>,
): Promise<ContinualState<P>> {
  const { tasks, learner, optimiser, stepsPerTask, keep } = training;
  if (!(Number.isSafeInteger(stepsPerTask) && stepsPerTask > 0))
    throw new ArgumentError(
      `trainContinual: stepsPerTask must be a whole number above 0, got ${stepsPerTask}`,
    );
  type Batch = { x: Tensor; y: Tensor; task: Tensor; old: Tensor; keep: number; before: P };
  const loss = (params: P, { x, y, task, old, keep, before }: Batch) => {
    const now = crossEntropy(learner.predict(params, task, x), y);
    return learner.drift ? add(now, mul(learner.drift(params, before, old), keep)) : now;
  };
  let state = start;
  for (;;) {
    const task = Math.floor(state.step / stepsPerTask);
    if (task >= tasks.length || options.signal?.aborted) return state;
    const { learned } = state;
    const fresh = state.step % stepsPerTask === 0;
    const before = fresh ? state.params : state.before;
    const from = fresh ? { ...state, optimiser: optimiser.init(state.params) } : state;
    const batch = (step: number): Batch => {
      const stream = new Stream(training.seed, step);
      const old = Int32Array.of(stream.below(Math.max(task, 1)));
      const { train: pictures } = tasks[task];
      const rows = Int32Array.from({ length: training.batch }, () => stream.below(pictures.count));
      return { ...rowsOf(pictures, rows, task), old: tensor(old), keep: task === 0 ? 0 : keep, before };
    };
    const end = await train({ loss, optimiser, batch }, from, {
      ...options,
      steps: (task + 1) * stepsPerTask,
      onCheckpoint: onCheckpoint && (now => onCheckpoint({ ...now, before, learned })),
    });
    state = { ...end, before, learned };
    if (end.step < (task + 1) * stepsPerTask) return state;
    const score = await accuracyOn(training, end.params, task);
    onTask?.(task, score);
    const scores = (await learned.data()).slice() as Float32Array;
    scores[task] = score;
    state = { ...state, learned: tensor(scores) };
    if (task === tasks.length - 1) await onCheckpoint?.(state);
  }
}

const rowsOf = (pictures: LabelledImages, rows: Int32Array, task: number) => {
  const { x, y } = takeImages(pictures, rows);
  return {
    x: tensor(x, [1, rows.length, pictures.height * pictures.width]),
    y: tensor(y, [1, rows.length]),
    task: tensor(Int32Array.of(task)),
  };
};

const TEST_BATCH = 500;

/** The share of a task's test pictures that is labelled rightly. */
export async function accuracyOn<P>(
  { tasks, learner }: Pick<ContinualTraining<P>, 'tasks' | 'learner'>,
  params: P,
  task: number,
): Promise<number> {
  const { test } = tasks[task];
  const right = compile((p: P, { x, y, task }: ReturnType<typeof rowsOf>) =>
    accuracy(learner.predict(p, task, x), y, { reduce: 'sum' }),
  );
  let count = 0;
  try {
    for (let first = 0; first < test.count; first += TEST_BATCH) {
      const rows = Int32Array.from({ length: Math.min(TEST_BATCH, test.count - first) }, (_, i) => first + i);
      using found = scope(() => right(params, rowsOf(test, rows, task)));
      count += Number(await found.item());
    }
  } finally {
    right.dispose();
  }
  return count / test.count;
}
