/** `train --validate`: looks at validation tasks on the way, and keeps the state of the best look in a file beside. */
import { join } from 'node:path';
import { CheckpointError } from '../core/errors.js';
import { loadSafetensors, saveSafetensors } from '../io/files.js';
import {
  metricOf,
  packState,
  type Training,
  type TrainingState,
  trainValidated,
  unpackState,
  type ValidatedBest,
  type ValidatedState,
} from '../meta/index.js';
import type { Recipe } from './recipes.js';
import { describeResult, evaluateOn, metadataOf, type Settings } from './run.js';
import type { Reports } from './session.js';

/** Tasks of a look. */
const TASKS = 200;

/** The state of the best look of a run in the folder `out`: a checkpoint that `eval` takes. */
export const bestIn = (out: string): string => join(out, 'best.safetensors');

/** A run that is watched. */
export interface Watched {
  readonly recipe: Recipe;
  readonly settings: Settings & { readonly validate: number };
  readonly out: string;
  /** The state before the first step, and where this process begins. */
  readonly start: TrainingState<unknown>;
  readonly from: TrainingState<unknown>;
  readonly resume: boolean;
}

/** Trains from `from`. Rejects as `trainValidated` does, CheckpointError where a resumed run has no best look. */
export async function trainWatched(
  { recipe, settings, out, start, from, resume }: Watched,
  training: Training<any, any>,
  { note, ...reports }: Reports<TrainingState<unknown>>,
): Promise<ValidatedState<unknown>> {
  const { steps, seed, validate, patience } = settings;
  // A score is to be small.
  const sign = metricOf(recipe.testing.family) === 'accuracy' ? -1 : 1;
  const which = { tasks: TASKS, seed, split: 'validation' as const, signal: reports.signal };
  let shown = '';
  return trainValidated<unknown, unknown>(
    training,
    from,
    {
      every: validate,
      patience,
      best: resume ? await readBest(start, bestIn(out)) : undefined,
      score: async params => {
        const { result } = await evaluateOn(recipe, recipe.learner, params, which);
        shown = describeResult(result);
        return sign * result.mean;
      },
      onScore: step => note(`validation after ${step} steps: ${shown}`),
      onBest: async best => {
        const { tensors, metadata } = await packState(best, metadataOf(recipe, settings));
        await saveSafetensors(bestIn(out), tensors, { ...metadata, score: String(best.score) });
      },
    },
    { steps, ...reports },
  );
}

async function readBest(start: TrainingState<unknown>, origin: string): Promise<ValidatedBest<unknown>> {
  const file = await loadSafetensors(origin);
  const score = Number(file.metadata.score ?? Number.NaN);
  if (!Number.isFinite(score))
    throw new CheckpointError(`${origin}: its metadata need score, a number, got ${file.metadata.score}`);
  return { ...unpackState(start, file, origin), score };
}
