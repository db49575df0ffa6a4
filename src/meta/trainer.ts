/**
 * The loop around a step: batches are a pure function of the step, all that changes is in one tree of tensors, so a
 * run that was cut anywhere and resumed from a checkpoint ends in the same bits as one that was not.
 */
import { ArgumentError, NaNError } from '../core/errors.js';
import { differentiable, valueAndGrad } from '../core/grad.js';
import { scope, Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import {
  abs,
  add,
  copy,
  eq,
  isFinite as finite,
  mul,
  ones,
  stack,
  sum,
  tensor,
  where,
  zeros,
} from '../ops/index.js';
import { applyUpdates, type Transform } from '../optim/index.js';
import { compile } from '../program/compile.js';

/** What is trained, and on what. */
export interface Training<P, B> {
  /** A scalar. Runs inside a compiled step: synchronous, and its randomness comes from the batch. */
  readonly loss: (params: P, batch: B) => Tensor;
  readonly optimiser: Transform<any>;
  /** The batch of one step as a tree of tensors: the same for the same step, whatever came before. */
  readonly batch: (step: number) => B;
}

/** Everything a run consists of after `step` steps. */
export interface TrainingState<P> {
  readonly step: number;
  readonly params: P;
  /** The state of the optimiser. */
  readonly optimiser: unknown;
}

/** The state before the first step. */
export const initialState = <P>(params: P, optimiser: Transform<any>): TrainingState<P> => ({
  step: 0,
  params,
  optimiser: optimiser.init(params),
});

export interface TrainOptions<P> {
  /** Steps of the whole run, those already in the state included. */
  readonly steps: number;
  /** Told of every step's loss, some steps at a time: `losses[i]` belongs to step `first + i`, counted from 0. */
  readonly onLosses?: (first: number, losses: Float32Array) => void;
  /**
   * Told once, after 64 steps, of the parameters whose gradient was exactly zero in all of them (`layers.0.w`), if there
   * are any: what a dead relu, an ignored input or a cut graph leaves untrained.
   */
  readonly onZeroGradients?: (steps: number, paths: readonly string[]) => void;
  /**
   * Given the state to keep at least every `checkpointSteps` steps (default 1000) and `checkpointSeconds` seconds
   * (default 5), when `signal` aborts, and at the end. Its tensors are valid until the returned promise resolves;
   * training waits for that.
   */
  readonly onCheckpoint?: (state: TrainingState<P>) => Promise<void>;
  readonly checkpointSteps?: number;
  readonly checkpointSeconds?: number;
  /** Ends the run early, after the step that runs. The returned state tells how far it came. */
  readonly signal?: AbortSignal;
}

/** Steps whose losses wait on the device at most: the bound of how far the host runs ahead. */
const WINDOW = 64;
/** Seconds between two looks at the losses, as far as WINDOW allows. */
const LOOK = 0.2;

/** Losses of the last WINDOW steps, and 1 as long as no loss or gradient was NaN or infinite. */
interface Log {
  readonly losses: Tensor;
  readonly healthy: Tensor;
  /** Size of each parameter's gradient, added up over all steps, where somebody wants to know. */
  readonly sizes: Tensor | null;
}

/**
 * Trains from `start` (whose tensors stay valid) to `steps` steps. One step is one compiled program with parameters
 * and optimiser state updated in place. A step whose loss or gradient is not finite changes nothing, nor does any
 * after it.
 *
 * @throws NaNError naming the first step whose loss or gradient is not finite; no checkpoint is made from then on.
 */
export async function train<P, B>(
  { loss, optimiser, batch }: Training<P, B>,
  start: TrainingState<P>,
  options: TrainOptions<P>,
): Promise<TrainingState<P>> {
  const { steps, onLosses, onZeroGradients, onCheckpoint, signal } = options;
  const { checkpointSteps = 1000, checkpointSeconds = 5 } = options;
  if (!(Number.isSafeInteger(steps) && steps >= start.step))
    throw new ArgumentError(`train: steps must be a whole number of at least ${start.step}, got ${steps}`);

  const differentiate = valueAndGrad(loss);
  const step = compile(
    (params: P, state: unknown, log: Log, data: B, slot: number): [P, unknown, Log] => {
      const { value, grads } = differentiate(params, data);
      const sizes = sizesOf(grads);
      const healthy = mul(log.healthy, mul(finite(value), finite(sizes.reduce((a, b) => add(a, b)))));
      const [updates, nextState] = optimiser.update(grads, state, params);
      const keep = <T>(next: T, old: T): T =>
        tree.map((a, b) => (differentiable(a) ? where(healthy, a, b) : a), next, old);
      const losses = where(eq(slots(), slot), value, log.losses);
      return [
        keep(applyUpdates(params, updates), params),
        keep(nextState, state),
        { losses, healthy, sizes: log.sizes && add(log.sizes, stack(sizes)) },
      ];
    },
    { donate: [0, 1, 2] },
  );

  let { params, state } = scope(() => ({ params: copied(start.params), state: copied(start.optimiser) }));
  const paths = tree.entries(params).flatMap(([path, p]) => (differentiable(p) ? [path] : []));
  let log: Log = {
    losses: zeros([WINDOW]),
    healthy: ones([]),
    sizes: onZeroGradients ? zeros([paths.length]) : null,
  };
  let done = start.step;
  const alarmAt = onZeroGradients ? done + WINDOW : Infinity;
  let saved = done;
  let savedAt = performance.now();
  let chunk = 1;
  const save = async () => {
    await onCheckpoint?.({ step: done, params, optimiser: state });
    saved = done;
    savedAt = performance.now();
  };
  try {
    while (done < steps && !signal?.aborted) {
      const first = done;
      const began = performance.now();
      const look = done < alarmAt ? alarmAt : Infinity;
      const until = Math.min(steps, done + chunk, nextMultiple(done, checkpointSteps), look);
      for (; done < until; done++)
        [params, state, log] = scope(() => step(params, state, log, batch(done), done % WINDOW));
      const losses = await readLosses(log, first, done);
      onLosses?.(first, losses);
      if (done === alarmAt) {
        const sizes = await log.sizes!.data();
        const dead = paths.filter((_, i) => sizes[i] === 0);
        if (dead.length > 0) onZeroGradients!(WINDOW, dead);
      }
      const seconds = (performance.now() - began) / 1000;
      chunk = Math.min(WINDOW, Math.max(1, Math.round(((done - first) * LOOK) / seconds)));
      const late = performance.now() - savedAt >= checkpointSeconds * 1000;
      if (late || done % checkpointSteps === 0) await save();
    }
    if (saved < done || done === start.step) await save();
  } catch (error) {
    discard({ params, state });
    throw error;
  } finally {
    step.dispose();
    discard(log);
  }
  return { step: done, params, optimiser: state };
}

/** Copies of the tensors of a tree. */
export const copied = <T>(of: T): T => tree.map(leaf => (leaf instanceof Tensor ? copy(leaf) : leaf), of);
/** Gives back the memory of every tensor in a tree. */
export const discard = (of: unknown): void => {
  for (const leaf of tree.leaves(of)) if (leaf instanceof Tensor) leaf.dispose();
};
const nextMultiple = (n: number, of: number): number => (Math.floor(n / of) + 1) * of;
const slots = (): Tensor => tensor(Float32Array.from({ length: WINDOW }, (_, i) => i));

/** The sum of absolute values of each gradient: finite only if all of its elements are. */
const sizesOf = (grads: unknown): Tensor[] =>
  tree
    .leaves(grads)
    .filter(differentiable)
    .map(g => sum(abs(g)));

/** Waits for steps `first .. done - 1` and returns their losses. */
async function readLosses(log: Log, first: number, done: number): Promise<Float32Array> {
  const [ring, [healthy]] = await Promise.all([log.losses.data(), log.healthy.data()]);
  const losses = Float32Array.from({ length: done - first }, (_, i) => ring[(first + i) % WINDOW]);
  if (healthy === 1) return losses;
  const bad = losses.findIndex(x => !Number.isFinite(x));
  throw new NaNError(
    bad < 0
      ? `a gradient is not finite in one of the steps ${first + 1} .. ${done}, while the losses are`
      : `the loss of step ${first + bad + 1} is ${losses[bad]}`,
  );
}
