import { ArgumentError } from '../core/errors.js';
import { copied, discard, type Training, type TrainingState, type TrainOptions, train } from './trainer.js';

/** When to look at validation tasks, what to look at, and how long to hope. */
export interface Validation<P> {
  /** Steps between two looks; there is one at the start and one at the end as well. */
  readonly every: number;
  /** Looks without improvement after which training ends; Infinity (default): it runs to its last step. */
  readonly patience?: number;
  /** What is to be small on validation tasks: a loss, or minus an accuracy. */
  readonly score: (params: P) => Promise<number>;
  /** Told of every look. */
  readonly onScore?: (step: number, score: number) => void;
}

/** How a run with validation ended. */
export interface ValidatedState<P> {
  /** Where training stopped: what a resumed run goes on from. */
  readonly last: TrainingState<P>;
  /** The parameters of the best look. Equal to `last`'s where that was the best. */
  readonly best: { readonly params: P; readonly step: number; readonly score: number };
}

/**
 * Trains as `train` does and keeps the parameters that are best on validation tasks; ends early where they have not
 * become better for `patience` looks. Test tasks are never touched. Rejects as `train` does, with ArgumentError if
 * `every` or `patience` is no number of steps or looks >= 1, and as `score` does.
 */
export async function trainValidated<P, B>(
  training: Training<P, B>,
  start: TrainingState<P>,
  { every, patience = Infinity, score, onScore }: Validation<P>,
  options: TrainOptions<P>,
): Promise<ValidatedState<P>> {
  if (!(Number.isSafeInteger(every) && every >= 1) || !(patience >= 1))
    throw new ArgumentError(
      `trainValidated: every and patience must be at least 1, got ${every} and ${patience}`,
    );
  const look = async ({ params, step }: TrainingState<P>) => {
    const value = await score(params);
    onScore?.(step, value);
    return value;
  };
  let last = start;
  let best = { params: copied(start.params), step: start.step, score: await look(start) };
  for (let stale = 0; last.step < options.steps && stale < patience && !options.signal?.aborted; ) {
    const steps = Math.min(options.steps, (Math.floor(last.step / every) + 1) * every);
    const before = last;
    last = await train(training, before, { ...options, steps });
    if (before !== start) discard(before);
    const value = await look(last);
    stale = value < best.score ? 0 : stale + 1;
    if (stale === 0) best = { params: copied(last.params), step: last.step, score: value };
  }
  return { last, best };
}
