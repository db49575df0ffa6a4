/** What `train TASK --method METHOD` means: the tasks, the learner and the numbers that go with them. */
import { basename, dirname, extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ArgumentError } from '../core/errors.js';
import { gpTasks } from '../data/gp.js';
import { linearTasks } from '../data/linear.js';
import { loadOmniglot } from '../data/load.js';
import { omniglotClasses, omniglotEpisodes } from '../data/omniglot.js';
import { sinusoid } from '../data/sinusoid.js';
import { asTaskFamily, type TaskFamily } from '../data/task.js';
import { fullHead, hypernet, noise, setEncoder } from '../hyper/index.js';
import {
  anil,
  cavia,
  conv4,
  drawEpisodes,
  generatedClassifier,
  hypernetLearner,
  hyperTransformer,
  type Learner,
  latentLearner,
  type MamlOptions,
  maml,
  metaSgd,
  type NoiseLearner,
  noiseLearner,
  pretrained,
  prototypes,
  reptile,
} from '../meta/index.js';
import { dense, flatten, type Layer, serial } from '../nn/index.js';
import { relu } from '../ops/index.js';
import {
  adam,
  chain,
  clipByGlobalNorm,
  cosineSchedule,
  linearSchedule,
  sgd,
  type Transform,
  warmupSchedule,
} from '../optim/index.js';

/** Ways of learning from tasks the command line knows. */
export const METHODS = [
  'hypernet',
  'latent',
  'maml',
  'fomaml',
  'meta-sgd',
  'anil',
  'reptile',
  'cavia',
  'protonet',
  'hypertransformer',
  'hypertransformer-logits',
  'noise',
  'noise-spread',
  'finetune',
  'separate',
] as const;
export type Method = (typeof METHODS)[number];

/** Ways of dividing Omniglot; see `omniglotClasses`. */
export const PROTOCOLS = ['vinyals', 'lake'] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** How many tasks, of which size: rows per task for regression, per task and class for classification. */
export interface TaskSizes {
  readonly tasks: number;
  readonly shots: number;
  readonly queries: number;
}

/** Everything a run needs but its seed and number of steps. */
export interface Recipe {
  /** See `taskName`. */
  readonly task: string;
  readonly learner: Learner;
  /** The same parameters used in a plainer way, printed beside the learner. */
  readonly baseline?: { readonly name: string; readonly learner: Learner };
  readonly training: TaskSizes & { readonly family: TaskFamily };
  /** `tasks` is the size of one batch of the evaluation. */
  readonly testing: TaskSizes & { readonly family: TaskFamily };
  /** Steps of a run that is not told how many. */
  readonly steps: number;
  optimiser(steps: number): Transform<any>;
  /** What a checkpoint records beside the settings, and what must be the same when it is used. */
  readonly record: Readonly<Record<string, string>>;
}

export interface RecipeOptions {
  readonly method: Method;
  readonly protocol: Protocol;
  /** The folder of the data sets, or that of the task's own one. */
  readonly data?: string;
}

const BUILT_IN = ['sinusoid', 'linear', 'gp', 'omniglot'];
/** Tasks of the plan that `train` does not have yet: their data are here, their learners are not. */
const PLANNED = ['mnist'];

/** True for what names a module rather than a built-in task. */
const isModule = (task: string): boolean => /[/\\]/.test(task) || /^\.(mjs|js)$/.test(extname(task));

/** The name of a task, without the path of a module: what is recorded and shown. */
export const taskName = (task: string): string => (isModule(task) ? basename(task) : task);

/**
 * The recipe for a built-in task or the path of a user's module.
 * Throws ArgumentError for a task or method that does not exist here, DataError where data are missing.
 */
export async function recipeFor(task: string, options: RecipeOptions): Promise<Recipe> {
  if (isModule(task)) {
    const family = await loadFamily(task);
    return { ...forFamily(family, options), task: taskName(task) };
  }
  switch (task) {
    case 'sinusoid':
      return forFamily(sinusoid, options);
    case 'linear':
      return forFamily(linearTasks(), options);
    case 'gp':
      return forFamily(gpTasks(), options);
    case 'omniglot':
      return omniglotRecipe(options);
    default:
      throw new ArgumentError(
        `train: '${task}' is ${PLANNED.includes(task) ? 'not a task of this version' : 'no task'}; expected one of ` +
          `${BUILT_IN.join(', ')}, or the path of a module like ./task.mjs`,
      );
  }
}

async function loadFamily(path: string): Promise<TaskFamily> {
  let module: { default?: unknown };
  try {
    module = await import(pathToFileURL(resolve(path)).href);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ArgumentError(`cannot load the task module ${path}: ${reason}`, { cause: error });
  }
  return asTaskFamily(module.default, path);
}

const forFamily = (family: TaskFamily, options: RecipeOptions): Recipe =>
  family.kind === 'regression' ? regression(family, options.method) : classification(family, options.method);

/** Adam whose rate rises for 200 steps and falls to a hundredth along a cosine; gradients have norm `clip` at most. */
const adamTo =
  (peak: number, clip: number) =>
  (steps: number): Transform<any> => {
    const rise = Math.min(200, Math.ceil(steps / 10));
    const rate = cosineSchedule(peak, Math.max(steps - rise, 1), { floor: 0.01 });
    return chain(clipByGlobalNorm(clip), adam(warmupSchedule(rise, rate)));
  };

/**
 * 10 support rows, as in the sinusoid experiments of Finn et al. 2017; the target is their 40-40 network. Learners that
 * take gradient steps train with one (Reptile with ten) and are shown with ten beside it.
 */
function regression(family: TaskFamily, method: Method): Recipe {
  const { inShape, outSize } = family;
  const hidden = [dense(40), relu, dense(40), relu];
  const head = dense(outSize, { gain: 1 });
  const target = serial(...hidden, head);
  const common = {
    task: family.name,
    optimiser: adamTo(1e-3, 1),
    training: { family, tasks: 25, shots: 10, queries: 10 },
    testing: { family, tasks: 100, shots: 10, queries: 50 },
    steps: 40_000,
    record: {},
  };
  const stepping = (make: (options: MamlOptions) => Learner, options: MamlOptions) => ({
    ...common,
    learner: make(options),
    baseline: { name: '10 steps', learner: make({ ...options, steps: 10 }) },
  });
  switch (method) {
    case 'hypernet':
    case 'latent': {
      const training = { family, tasks: 32, shots: 10, queries: 20 };
      const hyper = hypernet({
        target,
        inShape,
        condition: setEncoder([64, 64, 64]),
        trunk: serial(dense(64), relu, dense(64)),
        head: fullHead({ base: true }),
      });
      const { family: _, ...sizes } = training;
      const example = () => drawEpisodes(family, { split: 'train', seed: 0, first: 0, ...sizes }).support;
      const learner =
        method === 'hypernet'
          ? hypernetLearner(hyper, example)
          : latentLearner(hyper, { steps: 1, learningRate: 0.1 }, example);
      return { ...common, optimiser: adamTo(2e-3, 1), learner, training, steps: 20_000 };
    }
    case 'maml':
    case 'fomaml':
      return stepping(options => maml(target, inShape, options), {
        steps: 1,
        learningRate: 0.01,
        firstOrder: method === 'fomaml',
      });
    case 'meta-sgd':
      // Its rates suit the number of steps they were learned with.
      return { ...common, learner: metaSgd(target, inShape, { steps: 1, learningRate: 0.01 }) };
    case 'anil':
      return stepping(options => anil(serial(...hidden), head, inShape, options), {
        steps: 1,
        learningRate: 0.01,
      });
    case 'cavia':
      return stepping(options => cavia(target, inShape, { ...options, contextSize: 4 }), {
        steps: 1,
        learningRate: 1,
      });
    case 'reptile':
      return {
        ...common,
        learner: reptile(target, inShape, { steps: 10, learningRate: 0.005 }),
        optimiser: steps => sgd(linearSchedule(1, 0.05, steps)),
      };
    case 'finetune':
      return { ...common, learner: pretrained(target, inShape, { steps: 10, learningRate: 0.01 }) };
    case 'noise':
    case 'noise-spread':
      return {
        ...common,
        learner: linearNoise(inShape, outSize, method === 'noise' ? 0 : 1),
        optimiser: adamTo(1e-2, 1),
        training: { family, tasks: 64, shots: 10, queries: 20 },
        steps: 2500,
      };
    case 'protonet':
    case 'hypertransformer':
    case 'hypertransformer-logits':
    case 'separate':
      throw new ArgumentError(`${method} is no method for regression like ${family.name}; expected another`);
  }
}

/** Linear maps drawn from noise, the smallest target that shows whether the noise is used, and their `spread`. */
export const linearNoise = (inShape: readonly number[], outSize: number, spread: number): NoiseLearner =>
  noiseLearner(
    hypernet({
      target: dense(outSize, { bias: false, gain: 1 }),
      inShape,
      condition: noise(4),
      trunk: serial(dense(16), relu, dense(16)),
      head: fullHead(),
    }),
    { spread },
  );

const WAYS = 5;

/** Learners for classes of a family of its own, with as many ways in training as in the test. */
function classification(family: TaskFamily, method: Method, embed = embeddingFor(family.inShape)): Recipe {
  const { inShape, outSize } = family;
  const common = {
    task: family.name,
    training: { family, tasks: 4, shots: 1, queries: 5 },
    testing: { family, tasks: 10, shots: 1, queries: 15 },
    steps: 3000,
    optimiser: adamTo(3e-3, 10),
    record: {},
  };
  const plain = prototypes(embed, inShape);
  const head = dense(outSize, { gain: 1 });
  const target = serial(embed, head);
  const options = { steps: 1, learningRate: 0.4, firstOrder: method === 'fomaml' };
  switch (method) {
    case 'hypernet': {
      const baseline = { name: 'class means', learner: plain };
      return { ...common, learner: generatedClassifier(embed, inShape), baseline };
    }
    case 'protonet':
      return { ...common, learner: plain };
    case 'hypertransformer':
    case 'hypertransformer-logits': {
      const generate = method === 'hypertransformer' ? 'all' : 'logits';
      return { ...common, learner: hyperTransformer(inShape, { generate }) };
    }
    case 'maml':
    case 'fomaml':
      return { ...common, learner: maml(target, inShape, options) };
    case 'meta-sgd':
      return { ...common, learner: metaSgd(target, inShape, options) };
    case 'anil':
      return { ...common, learner: anil(embed, head, inShape, options) };
    case 'reptile': {
      const learner = reptile(target, inShape, { steps: 10, learningRate: 0.05 });
      return { ...common, learner, optimiser: steps => sgd(linearSchedule(1, 0.05, steps)) };
    }
    case 'finetune':
      return { ...common, learner: pretrained(target, inShape, { steps: 10, learningRate: 0.05 }) };
    case 'cavia':
    case 'latent':
    case 'noise':
    case 'noise-spread':
    case 'separate':
      throw new ArgumentError(
        `${method} is no method for classification like ${family.name}; expected another`,
      );
  }
}

/** Convolutions for images that four halvings leave something of, else a small dense network. */
function embeddingFor(inShape: readonly number[]): Layer {
  if (inShape.length === 3 && Math.min(inShape[0], inShape[1]) >= 16) return conv4(32);
  return serial(flatten(inShape.length), dense(64), relu, dense(64, { gain: 1 }));
}

/**
 * 5-way 1-shot tasks of unseen characters. Learners that compare classes train with 30 of them at a time, which is
 * harder and so teaches more (Snell et al. 2017).
 */
function omniglotRecipe({ method, protocol, data }: RecipeOptions): Recipe {
  const own = data !== undefined && basename(resolve(data)) === 'omniglot';
  const omniglot = loadOmniglot(own ? dirname(resolve(data)) : data);
  omniglot.preload();
  const split = { split: protocol };
  const testing = omniglotEpisodes(omniglot, { ...split, ways: WAYS });
  const recipe = classification(testing, method);
  const { train, test } = omniglotClasses(omniglot, split);
  const record = { trainClasses: JSON.stringify(train), testClasses: JSON.stringify(test) };
  if (method !== 'hypernet' && method !== 'protonet') return { ...recipe, record };
  const family = omniglotEpisodes(omniglot, { ...split, ways: 30 });
  return { ...recipe, training: { family, tasks: 1, shots: 1, queries: 5 }, record };
}
