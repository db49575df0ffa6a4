/** `weightloom train TASK`: trains, evaluates on unseen tasks before and after, and keeps a checkpoint to resume from. */
import { mkdir } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { type BackendName, init } from '../backends/init.js';
import { ArgumentError } from '../core/errors.js';
import type { Safetensors } from '../io/safetensors.js';
import {
  drawEpisodes,
  packState,
  train,
  trainingLoss,
  unpackState,
  type ValidatedBest,
} from '../meta/index.js';
import { type Arguments, flag, integer, oneOf, parse, text } from './args.js';
import { isSequence, sequenceSummary, trainSequence } from './continual.js';
import { drawUnseen } from './figure.js';
import { METHODS, methodOf, PROTOCOLS, type Recipe, recipeFor, taskName } from './recipes.js';
import {
  checkGiven,
  checkRecord,
  describeResult,
  evaluateOn,
  metadataOf,
  type Result,
  type Settings,
  settingsOf,
  startOf,
} from './run.js';
import { checkpointIn, checkStep, resumed, runSession } from './session.js';
import { bestIn, trainWatched } from './validation.js';

/** Tasks of an evaluation, as in Finn et al. 2017. */
export const TEST_TASKS = 600;

/** The options of `train`. */
export const trainSpec = {
  name: 'train',
  positionals: ['TASK'],
  options: {
    backend: oneOf(['auto', 'ref', 'cpu', 'webgpu'] satisfies BackendName[], undefined),
    threads: integer(1, undefined),
    data: text('the folder of the data sets', undefined),
    method: oneOf(METHODS, undefined),
    protocol: oneOf(PROTOCOLS, undefined),
    steps: integer(1, undefined),
    seed: integer(0, undefined),
    ways: integer(2, undefined),
    context: integer(1, undefined),
    tasks: integer(2, TEST_TASKS),
    validate: integer(1, undefined),
    patience: integer(1, undefined),
    transductive: flag(),
    out: text('a folder', undefined),
    resume: flag(),
    json: flag(),
  },
};
/** What `train` is told beside its task. */
export type TrainOptions = Arguments<typeof trainSpec.options>['options'];

/** What `train --json` prints. */
export interface TrainResult {
  readonly task: string;
  readonly method: string;
  readonly backend: string;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Time this process trained, evaluations not included, that of its processors, and its speed. */
  readonly seconds: number;
  readonly cpuSeconds: number;
  readonly stepsPerSecond: number;
  /** True if query rows were seen beside each other, absent if each was answered by itself. */
  readonly transductive?: true;
  readonly before: Result;
  readonly after: Result;
  /** The same parameters used in a plainer way, for methods that have one. */
  readonly baseline?: Result & { readonly name: string };
  /** Further figures of tasks that have some: nats to the exact posterior, the variance of drawn weights. */
  readonly figures?: readonly Result[];
  /**
   * Where validation tasks were looked at: the step of the best look, whose parameters `after` and the rest are of, and
   * its error, or minus its accuracy.
   */
  readonly best?: { readonly step: number; readonly score: number };
  /** The file `eval` repeats `after` from. */
  readonly checkpoint: string;
}

/** Runs the command and resolves to its exit code: 0, or 130 if it was interrupted. Throws what a run throws. */
export async function trainCommand(args: string[]): Promise<number> {
  const { positionals, options } = parse(trainSpec, args);
  const [task] = positionals;
  const interrupt = new AbortController();
  const onInterrupt = () => interrupt.abort();
  process.on('SIGINT', onInterrupt);
  try {
    const print = <R>(result: R, summary: (result: R) => string) =>
      console.log(options.json ? JSON.stringify(result) : summary(result));
    for (const name of ['validate', 'transductive'] as const)
      if (isSequence(task) && options[name])
        throw new ArgumentError(`train: --${name} is for tasks drawn at random; expected none for ${task}`);
    if (isSequence(task)) print(await trainSequence(task, options, interrupt.signal), sequenceSummary);
    else print((await trainTask(task, options, interrupt.signal)).result, summary);
    return 0;
  } catch (error) {
    if (error === interrupt.signal.reason) return 130;
    throw error;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

/** A run with what it was scored by, task for task, in the order of the tasks. */
export interface TrainRun {
  readonly result: TrainResult;
  readonly scores: Float64Array;
}

/** Trains and evaluates. Rejects with the signal's reason once it aborts, a checkpoint of the training being saved. */
export async function trainTask(task: string, options: TrainOptions, signal: AbortSignal): Promise<TrainRun> {
  const out = options.out ?? join('runs', basename(task, extname(task)));
  const checkpoint = checkpointIn(out);
  const file = await resumed(options.resume, out);
  const choice = chosen(task, options, file, checkpoint);
  const { method, seed } = choice;
  const recipe = await recipeFor(task, { ...choice, data: options.data });
  if (file) checkRecord(recipe, file, checkpoint);
  const steps = options.steps ?? (file ? settingsOf(file, checkpoint).steps : recipe.steps);
  const settings: Settings = { ...choice, steps };

  const backend = await init({ backend: options.backend, threads: options.threads });
  try {
    await mkdir(out, { recursive: true });
    const start = startOf(recipe, settings);
    const from = file ? unpackState(start, file, checkpoint) : start;
    checkStep(from.step, steps, checkpoint);

    const which = { tasks: options.tasks, seed, signal };
    const score = (params: unknown, learner = recipe.learner) => evaluateOn(recipe, learner, params, which);
    const { result: before } = await score(start.params);
    console.error(`before training: ${describeResult(before)}`);

    const metadata = metadataOf(recipe, settings);
    const training = trainingOf(recipe, settings);
    const { validate } = settings;
    let best: ValidatedBest<unknown> | undefined;
    const { end, metrics, ...times } = await runSession({
      out,
      label: `${recipe.task} ${method} on ${backend.name}`,
      steps,
      from,
      resume: options.resume,
      signal,
      train: async reports => {
        if (validate === undefined) return train(training, from, { steps, ...reports });
        const watched = {
          recipe,
          settings: { ...settings, validate },
          out,
          start,
          from,
          resume: options.resume,
        };
        const ended = await trainWatched(watched, training, reports);
        best = ended.best;
        return ended.last;
      },
      pack: state => packState(state, metadata),
    });
    const { params } = best ?? end;
    const { result: after, scores } = await score(params);
    const { baseline, figures } = recipe;
    const plainer = baseline && {
      name: baseline.name,
      ...(await score(params, baseline.learner)).result,
    };
    if (plainer) console.error(`${plainer.name} of the same embedding: ${describeResult(plainer)}`);
    if (recipe.task === 'sinusoid')
      await drawUnseen(join(out, 'sinusoid'), recipe, params, metrics, {
        before,
        after,
        method,
        seed,
        steps,
      });
    const result = {
      task: recipe.task,
      method,
      backend: backend.name,
      steps,
      ...times,
      ...(settings.transductive && { transductive: true as const }),
      before,
      after,
      ...(plainer && { baseline: plainer }),
      ...(figures && { figures: await figures(params, which) }),
      ...(best && { best: { step: best.step, score: best.score } }),
      checkpoint: best ? bestIn(out) : checkpoint,
    };
    return { result, scores };
  } finally {
    backend.dispose();
  }
}

/** Settings from the options, or from the checkpoint that is resumed, which they must not contradict. */
function chosen(
  task: string,
  options: TrainOptions,
  file: Safetensors | null,
  origin: string,
): Omit<Settings, 'steps'> {
  const { method, protocol, steps, seed, ways, context, validate, patience } = options;
  const transductive = options.transductive || undefined;
  if (patience !== undefined && validate === undefined && !file)
    throw new ArgumentError('train: --patience counts looks of --validate; expected both');
  if (!file)
    return {
      method: method ?? methodOf(task),
      protocol: protocol ?? 'vinyals',
      seed: seed ?? 0,
      ways,
      context,
      validate,
      patience,
      transductive,
    };
  const { task: recorded, ...settings } = settingsOf(file, origin);
  checkGiven(
    { task: taskName(task), method, protocol, steps, seed, ways, context, validate, patience, transductive },
    { task: recorded, ...settings },
    origin,
  );
  return settings;
}

/** What the trainer is given for a recipe. */
export function trainingOf({ training, learner, optimiser }: Recipe, { steps, seed }: Settings) {
  const { family, shotsAt, ...sizes } = training;
  return {
    loss: trainingLoss(learner, family.outSize),
    optimiser: optimiser(steps),
    batch: (step: number) =>
      drawEpisodes(
        family,
        {
          split: 'train',
          seed,
          first: step * sizes.tasks,
          ...sizes,
          ...(shotsAt && { shots: shotsAt(step) }),
        },
        { key: learner.random },
      ),
  };
}

const summary = (r: TrainResult): string =>
  [
    `${r.task}, ${r.method}${r.transductive ? ', transductive' : ''}, ${r.backend}: ${r.steps} steps, ${r.seconds.toFixed(1)} s, ${r.stepsPerSecond.toFixed(1)} steps/s`,
    `before      ${describeResult(r.before)}`,
    `after       ${describeResult(r.after)}`,
    ...(r.best ? [`            of the best look at validation tasks, after ${r.best.step} steps`] : []),
    ...(r.baseline ? [`${r.baseline.name} ${describeResult(r.baseline)}`] : []),
    ...(r.figures ?? []).map(figure => `            ${describeResult(figure)}`),
    `checkpoint  ${r.checkpoint}`,
  ].join('\n');
