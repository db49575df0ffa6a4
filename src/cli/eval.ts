/** `weightloom eval --checkpoint FILE`: evaluates a checkpoint on unseen tasks, the ones `train` evaluated it on. */
import { type BackendName, init } from '../backends/init.js';
import { ArgumentError } from '../core/errors.js';
import { loadSafetensors } from '../io/files.js';
import { unpackState } from '../meta/index.js';
import { flag, integer, oneOf, parse, text } from './args.js';
import { evaluateSequence, isSequence } from './continual.js';
import { recipeFor, taskName } from './recipes.js';
import {
  checkGiven,
  checkRecord,
  describeResult,
  evaluateOn,
  type Result,
  settingsOf,
  startOf,
} from './run.js';
import { TEST_TASKS } from './train.js';

/** The options of `eval`. */
export const evalSpec = {
  name: 'eval',
  options: {
    checkpoint: text('the path of a checkpoint', undefined),
    tasks: integer(2, TEST_TASKS),
    task: text('the module of a task of your own', undefined),
    backend: oneOf(['auto', 'ref', 'cpu', 'webgpu'] satisfies BackendName[], undefined),
    threads: integer(1, undefined),
    data: text('the folder of the data sets', undefined),
    json: flag(),
  },
};

/** Runs the command and resolves to its exit code. Throws what goes wrong. */
export async function evalCommand(args: string[]): Promise<number> {
  const { options } = parse(evalSpec, args);
  const { checkpoint, tasks } = options;
  if (checkpoint === undefined) throw new ArgumentError('eval: no --checkpoint; expected the path of one');
  const file = await loadSafetensors(checkpoint);
  const { task, ...settings } = settingsOf(file, checkpoint);
  if (options.task !== undefined) checkGiven({ task: taskName(options.task) }, { task }, checkpoint);
  if (isSequence(task)) {
    const backend = await init({ backend: options.backend, threads: options.threads });
    try {
      const score = await evaluateSequence({ ...settings, task, data: options.data }, file, checkpoint);
      print({ task, method: settings.method, ...score }, options.json);
      return 0;
    } finally {
      backend.dispose();
    }
  }
  const recipe = await recipeFor(options.task ?? task, { ...settings, data: options.data });
  checkRecord(recipe, file, checkpoint);
  const backend = await init({ backend: options.backend, threads: options.threads });
  try {
    const { params } = unpackState(startOf(recipe, settings), file, checkpoint);
    const which = { tasks, seed: settings.seed };
    const { result: score } = await evaluateOn(recipe, recipe.learner, params, which);
    const { baseline } = recipe;
    if (baseline) {
      const { result: plainer } = await evaluateOn(recipe, baseline.learner, params, which);
      console.error(`${baseline.name} of the same embedding: ${describeResult(plainer)}`);
    }
    print({ task: recipe.task, method: settings.method, ...score }, options.json);
    return 0;
  } finally {
    backend.dispose();
  }
}

const print = (
  { task, method, ...score }: Result & { task: string; method: string },
  json: boolean,
): void => {
  const { metric, mean, ci95, tasks } = score;
  const result = { task, method, metric, mean, ci95, tasks };
  console.log(json ? JSON.stringify(result) : `${task}, ${method}: ${describeResult(score)}`);
};
