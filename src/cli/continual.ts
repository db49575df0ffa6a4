/** `train` and `eval` of tasks that are learned one after the other: split MNIST and permuted MNIST. */
import { join } from 'node:path';
import { type BackendName, init } from '../backends/init.js';
import { ArgumentError } from '../core/errors.js';
import { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { loadMnist } from '../data/load.js';
import { permutedMnist, splitMnist } from '../data/mnist.js';
import { chunkedHead, hypernet, taskId } from '../hyper/index.js';
import type { Safetensors } from '../io/safetensors.js';
import {
  accuracyOn,
  type ContinualState,
  type ContinualTraining,
  continualHypernet,
  initialContinualState,
  packState,
  type Summary,
  separateNetworks,
  summarise,
  trainContinual,
  unpackState,
} from '../meta/index.js';
import { dense, serial } from '../nn/index.js';
import { gelu, key, relu } from '../ops/index.js';
import { adam, cosineSchedule } from '../optim/index.js';
import { checkGiven, describeResult, type Result, settingsOf } from './run.js';
import { checkpointIn, checkStep, resumed, runSession } from './session.js';

/** Sequences of tasks `train` knows. */
export const SEQUENCES = ['split-mnist', 'permuted-mnist'] as const;
export type Sequence = (typeof SEQUENCES)[number];

/**
 * Ways of learning them: a chunked hypernetwork that keeps the weights it makes for old tasks, the same one that does
 * not (what is lost shows what keeping is worth), and a network of its own for each task.
 */
export const CONTINUAL_METHODS = ['hypernet', 'finetune', 'separate'] as const;
export type ContinualMethod = (typeof CONTINUAL_METHODS)[number];

/** True for what names a sequence of tasks. */
export const isSequence = (task: string): task is Sequence => SEQUENCES.some(name => name === task);

/** What decides a run. */
export interface ContinualSettings {
  readonly task: Sequence;
  readonly method: string;
  readonly steps: number | undefined;
  readonly seed: number;
  readonly data: string | undefined;
}

interface Run extends ContinualTraining<any> {
  /** Weights of one task's network, and of everything that is learned. */
  readonly weights: { readonly target: number; readonly learned: number };
}

const HIDDEN = [100, 100];

/**
 * The targets, batches and numbers of steps of Henning et al., "Posterior meta-replay for continual learning", NeurIPS
 * 2021 (100-100 networks; 5 x 5,000 steps of 32 pictures, 10 x 5,000 of 128). The generators are smaller than theirs,
 * and have gelu where they have relu, of which too many die when a layer is narrow.
 * Throws ArgumentError for a method that is none of CONTINUAL_METHODS, DataError where data are missing.
 */
function runOf({ task, method, steps, seed, data }: ContinualSettings): Run {
  if (!CONTINUAL_METHODS.some(name => name === method))
    throw new ArgumentError(
      `train: ${method} is no method for ${task}; expected one of ${CONTINUAL_METHODS.join(', ')}`,
    );
  const parts = loadMnist(data);
  const splits = task === 'split-mnist';
  const tasks = splits
    ? splitMnist(parts.train).map((train, i) => ({ train, test: splitMnist(parts.test)[i] }))
    : Array.from({ length: 10 }, (_, i) => ({
        train: permutedMnist(parts.train, seed, i),
        test: permutedMnist(parts.test, seed, i),
      }));
  const inShape = [parts.train.height * parts.train.width];
  const target = serial(...HIDDEN.flatMap(n => [dense(n), relu]), dense(splits ? 2 : 10, { gain: 1 }));
  const trunk = splits
    ? serial(dense(32), gelu, dense(32), gelu, dense(32))
    : serial(dense(100), gelu, dense(100));
  const hyper = hypernet({
    target,
    inShape,
    condition: taskId(tasks.length, splits ? 32 : 24),
    trunk,
    activation: gelu,
    head: chunkedHead(splits ? { chunk: 2000, slot: 32 } : { chunk: 750, slot: 8 }),
  });
  const learner =
    method === 'separate' ? separateNetworks(target, inShape, tasks.length) : continualHypernet(hyper);
  const stepsPerTask = steps === undefined ? 5000 : steps / tasks.length;
  if (!Number.isInteger(stepsPerTask))
    throw new ArgumentError(
      `--steps is ${steps}; expected a multiple of the ${tasks.length} tasks of ${task}`,
    );
  const learned = tree
    .leaves(learner.init(key(seed)))
    .reduce((n: number, leaf) => n + (leaf instanceof Tensor ? leaf.size : 0), 0);
  return {
    tasks,
    learner,
    optimiser: adam(cosineSchedule(splits ? 2e-3 : 1e-3, stepsPerTask, { floor: 0.02 })),
    stepsPerTask,
    batch: splits ? 32 : 128,
    keep: method === 'hypernet' ? 0.01 : 0,
    seed,
    weights: { target: hyper.weightCount, learned },
  };
}

/** What `train --json` prints of a sequence, in addition to what it prints of all tasks. */
export interface ContinualResult {
  readonly task: string;
  readonly method: string;
  readonly backend: string;
  readonly steps: number;
  readonly seconds: number;
  readonly stepsPerSecond: number;
  readonly before: Result;
  /** Mean accuracy on all tasks after the last was learned. */
  readonly after: Result;
  /** Mean accuracy on every task just after it was learned: what is lost of it is forgotten. */
  readonly learned: Result;
  readonly weights: Run['weights'];
  readonly checkpoint: string;
}

const resultOf = (scores: ArrayLike<number>): Result => {
  const summary: Summary = summarise(scores);
  return { metric: 'accuracy', ...summary };
};

async function scoresOf(run: Run, params: unknown): Promise<number[]> {
  const scores = [];
  for (const task of run.tasks.keys()) scores.push(await accuracyOn(run, params, task));
  return scores;
}

const packed = ({ before, learned, params, ...state }: ContinualState<unknown>) => ({
  ...state,
  params: { now: params, before, learned },
});

function unpacked(run: Run, file: Safetensors, origin: string): ContinualState<any> {
  const like = initialContinualState(run, run.learner.init(key(run.seed)));
  const { params, ...state } = unpackState(packed(like), file, origin);
  return {
    ...state,
    params: params.now,
    before: params.before,
    learned: params.learned,
  } as ContinualState<any>;
}

const metadataOf = ({ task, method, seed }: ContinualSettings, { tasks, stepsPerTask }: Run) => ({
  task,
  method,
  protocol: 'vinyals',
  steps: String(stepsPerTask * tasks.length),
  seed: String(seed),
});

/** Options of `train` that matter here. */
export interface ContinualOptions {
  readonly backend?: BackendName;
  readonly threads?: number;
  readonly data?: string;
  readonly method?: string;
  readonly steps?: number;
  readonly seed?: number;
  readonly out?: string;
  readonly resume: boolean;
}

/** Learns a sequence of tasks. Rejects with the signal's reason once it aborts, a checkpoint being saved. */
export async function trainSequence(
  task: Sequence,
  options: ContinualOptions,
  signal: AbortSignal,
): Promise<ContinualResult> {
  const out = options.out ?? join('runs', task);
  const checkpoint = checkpointIn(out);
  const file = await resumed(options.resume, out);
  const recorded = file && settingsOf(file, checkpoint);
  if (recorded) {
    const { method, steps, seed } = options;
    checkGiven({ task, method, steps, seed }, recorded, checkpoint);
  }
  const settings: ContinualSettings = {
    task,
    method: recorded?.method ?? options.method ?? 'hypernet',
    steps: recorded?.steps ?? options.steps,
    seed: recorded?.seed ?? options.seed ?? 0,
    data: options.data,
  };
  const backend = await init({ backend: options.backend, threads: options.threads });
  try {
    const run = runOf(settings);
    const start = file
      ? unpacked(run, file, checkpoint)
      : initialContinualState(run, run.learner.init(key(settings.seed)));
    const steps = run.stepsPerTask * run.tasks.length;
    checkStep(start.step, steps, checkpoint);
    const before = resultOf(await scoresOf(run, run.learner.init(key(settings.seed))));
    const metadata = metadataOf(settings, run);
    const { end, seconds, stepsPerSecond } = await runSession<ContinualState<unknown>>({
      out,
      label: `${task} ${settings.method} on ${backend.name}`,
      steps,
      from: start,
      resume: options.resume,
      signal,
      train: reports => trainContinual(run, start, reports),
      pack: state => packState(packed(state), metadata),
    });
    return {
      task,
      method: settings.method,
      backend: backend.name,
      steps,
      seconds,
      stepsPerSecond,
      before,
      after: resultOf(await scoresOf(run, end.params)),
      learned: resultOf(await end.learned.data()),
      weights: run.weights,
      checkpoint,
    };
  } finally {
    backend.dispose();
  }
}

/** Accuracy on all tasks by the parameters of a checkpoint; a backend must be in use. */
export async function evaluateSequence(
  settings: Omit<ContinualSettings, 'steps'> & { readonly steps: number },
  file: Safetensors,
  origin: string,
): Promise<Result> {
  const run = runOf(settings);
  return resultOf(await scoresOf(run, unpacked(run, file, origin).params));
}

/** The lines a person reads. */
export const sequenceSummary = (r: ContinualResult): string =>
  [
    `${r.task}, ${r.method}, ${r.backend}: ${r.steps} steps, ${r.seconds.toFixed(1)} s, ${r.stepsPerSecond.toFixed(1)} steps/s`,
    `before      ${describeResult(r.before)}`,
    `learned     ${describeResult(r.learned)}, each just after it was learned`,
    `after       ${describeResult(r.after)}`,
    `weights     ${r.weights.learned} learned, ${r.weights.target} in one task's network`,
    `checkpoint  ${r.checkpoint}`,
  ].join('\n');
