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
  /** Given the state of every look that is better than all before it, to keep; training waits for the promise. */
  readonly onBest?: (best: ValidatedBest<P>) => Promise<void>;
  /** Of a run that is resumed: the best look so far, as `onBest` was given it. */
  readonly best?: ValidatedBest<P>;
}

/** The state of a run at its best look, and the score there. */
export interface ValidatedBest<P> extends TrainingState<P> {
  readonly score: number;
}

/** How a run with validation ended. */
export interface ValidatedState<P> {
  /** Where training stopped: what a resumed run goes on from. */
  readonly last: TrainingState<P>;
  /** The best look. Equal to `last` where that was the best. */
  readonly best: ValidatedBest<P>;
}

/**
 * Trains as `train` does and keeps the parameters that are best on validation tasks; ends early where they have not
 * become better for `patience` looks. Test tasks are never touched. A run that was cut and goes on from its last state
 * and its best one ends as if it had not been. Rejects as `train` does, with ArgumentError if `every` or `patience` is
 * no number of steps or looks >= 1, and as `score` and `onBest` do.
 */
export async function trainValidated<P, B>(
  training: Training<P, B>,
  start: TrainingState<P>,
  { every, patience = Infinity, score, onScore, onBest, best: known }: Validation<P>,
  options: TrainOptions<P>,
): Promise<ValidatedState<P>> {
  if (!(Number.isSafeInteger(every) && every >= 1) || !(patience >= 1))
    throw new ArgumentError(
      `trainValidated: every and patience must be at least 1, got ${every} and ${patience}`,
    );
  const { steps, signal, onZeroGradients } = options;
  const staleAt = (step: number, best: ValidatedBest<P>) => Math.floor((step - best.step) / every);
  const look = async (state: TrainingState<P>, best?: ValidatedBest<P>): Promise<ValidatedBest<P>> => {
    const value = await score(state.params);
    onScore?.(state.step, value);
    if (best && !(value < best.score)) return best;
    const better = { ...copied(state), score: value };
    await onBest?.(better);
    if (best && best !== known) discard(best);
    return better;
  };
  let last = start;
  // A run that was cut between two looks has none to repeat; one that was cut at a look may not have got to it.
  let best = known && start.step % every !== 0 ? known : await look(start, known);
  while (last.step < steps && staleAt(last.step, best) < patience && !signal?.aborted) {
    const until = Math.min(steps, (Math.floor(last.step / every) + 1) * every);
    const before = last;
    // The alarm counts from the start of the run, not from each look.
    const alarm = before === start ? onZeroGradients : undefined;
    last = await train(training, before, { ...options, onZeroGradients: alarm, steps: until });
    if (before !== start) discard(before);
    if (last.step === until) best = await look(last, best);
  }
  return { last, best };
}
