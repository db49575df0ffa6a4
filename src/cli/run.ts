/** What `train` and `eval` share: the settings of a run, its checkpoint file and its evaluation. */
import { ArgumentError, CheckpointError } from '../core/errors.js';
import type { Safetensors } from '../io/safetensors.js';
import {
  drawEpisodes,
  type Episodes,
  evaluate,
  initialState,
  type Learner,
  metricOf,
  queryScores,
  type Summary,
  summarise,
  type TrainingState,
  toEpisodes,
} from '../meta/index.js';
import { key } from '../ops/index.js';
import { METHODS, type Method, PROTOCOLS, type Protocol, type Recipe } from './recipes.js';

/** All that decides what a run computes. Equal settings give equal checkpoints. */
export interface Settings {
  readonly method: Method;
  readonly protocol: Protocol;
  readonly steps: number;
  readonly seed: number;
  /** Classes of a test task, where a task lets one choose. */
  readonly ways?: number;
  /** Numbers a task may adapt, for methods that have a context. */
  readonly context?: number;
  /** Steps between two looks at validation tasks, where the best look is what counts. */
  readonly validate?: number;
  /** Looks without improvement that end the training. */
  readonly patience?: number;
  /** True where query rows are seen beside each other; see `RecipeOptions`. */
  readonly transductive?: true;
}

/** A figure with its interval, in the unit of `metric`. */
export interface Result extends Summary {
  readonly metric: string;
}

/** A result and the score of each task, in order. */
export interface Scored {
  readonly result: Result;
  readonly scores: Float64Array;
}

/** Parameters and optimiser before the first step. */
export const startOf = ({ learner, optimiser }: Recipe, { seed, steps }: Settings): TrainingState<unknown> =>
  initialState(learner.init(key(seed)), optimiser(steps));

/** The metadata of a run's checkpoints: no time and no path, so that equal runs give equal files. */
export const metadataOf = (
  { task, record }: Recipe,
  { method, protocol, ...rest }: Settings,
): Record<string, string> => ({
  ...record,
  task,
  method,
  protocol,
  ...Object.fromEntries(
    Object.entries(rest)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [name, String(value)]),
  ),
});

/** The settings a checkpoint was made with. Throws CheckpointError if they are not those of a training run. */
export function settingsOf({ metadata }: Safetensors, origin: string): Settings & { readonly task: string } {
  const field = <T>(name: string, read: (text: string) => T | undefined): T => {
    const value = read(metadata[name] ?? '');
    if (value === undefined)
      throw new CheckpointError(
        `${origin} is no checkpoint of a training run: its metadata have ${name} ${JSON.stringify(metadata[name])}`,
      );
    return value;
  };
  const whole = (text: string) =>
    /^\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
  const optional = (name: 'ways' | 'context' | 'validate' | 'patience') =>
    metadata[name] === undefined ? {} : { [name]: field(name, whole) };
  return {
    task: field('task', text => text || undefined),
    method: field('method', text => METHODS.find(method => method === text)),
    protocol: field('protocol', text => PROTOCOLS.find(protocol => protocol === text)),
    steps: field('steps', whole),
    seed: field('seed', whole),
    ...optional('ways'),
    ...optional('context'),
    ...optional('validate'),
    ...optional('patience'),
    ...(metadata.transductive === 'true' && { transductive: true as const }),
  };
}

/** Throws CheckpointError where what the file records is not what this run would record. */
export function checkRecord(recipe: Recipe, { metadata }: Safetensors, origin: string): void {
  for (const [name, text] of Object.entries(recipe.record))
    if (metadata[name] !== text)
      throw new CheckpointError(`${origin} was trained with other ${name} than the data here give`);
}

/** Throws ArgumentError where an option that was given contradicts the checkpoint. */
export function checkGiven(given: Readonly<Record<string, unknown>>, settings: object, origin: string): void {
  for (const [name, value] of Object.entries(given)) {
    const recorded = (settings as Record<string, unknown>)[name];
    if (value !== undefined && value !== recorded)
      throw new ArgumentError(
        `--${name} is ${value}, but ${origin} was made with ${recorded}; expected no other value`,
      );
  }
}

/**
 * The learner's score on the first `tasks` unseen tasks of a seed, of the test unless told. Rejects with the signal's
 * reason if it aborts.
 */
export async function evaluateOn(
  { testing }: Recipe,
  learner: Learner,
  params: unknown,
  {
    tasks,
    seed,
    split = 'test',
    signal,
  }: { tasks: number; seed: number; split?: 'validation' | 'test'; signal?: AbortSignal },
): Promise<Scored> {
  const { family, tasks: batchTasks, shots, queries, fixed: official } = testing;
  const fixed = split === 'test' ? official : undefined;
  const draw = (first: number, count: number): Episodes =>
    fixed ? toEpisodes(fixed) : drawEpisodes(family, { split, seed, first, tasks: count, shots, queries });
  const size = fixed ? { tasks: fixed.tasks, batchTasks: fixed.tasks } : { tasks, batchTasks };
  const scores = await evaluate(queryScores(learner, family.outSize), params, draw, { ...size, signal });
  return { result: { metric: metricOf(family), ...summarise(scores) }, scores };
}

/** `0.0123 ± 0.0004 mse over 600 unseen tasks`; accuracies as percentages. */
export function describeResult({ metric, mean, ci95, tasks }: Result): string {
  const figure =
    metric === 'accuracy'
      ? `${(100 * mean).toFixed(2)} ± ${(100 * ci95).toFixed(2)} %`
      : `${mean.toPrecision(4)} ± ${ci95.toPrecision(2)}`;
  return `${metric} ${figure} over ${tasks} unseen tasks`;
}
