/** What `train TASK --method METHOD` means: the tasks, the learner and the numbers that go with them. */
import { basename, dirname, extname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ArgumentError } from '../core/errors.js';
import { type GpFamily, gpTasks } from '../data/gp.js';
import { linearTasks } from '../data/linear.js';
import { loadOmniglot, loadOneShotRuns } from '../data/load.js';
import { twoModes } from '../data/modes.js';
import { omniglotClasses, omniglotEpisodes, withinAlphabets } from '../data/omniglot.js';
import { oneShotBatch } from '../data/one-shot.js';
import { sinusoid } from '../data/sinusoid.js';
import { asTaskFamily, type ClassificationFamily, type TaskBatch, type TaskFamily } from '../data/task.js';
import { description, fullHead, hypernet, noise, type Support, setEncoder } from '../hyper/index.js';
import {
  anil,
  architectureSearch,
  cavia,
  conv4,
  drawEpisodes,
  fineTuned,
  gaussianLearner,
  generatedClassifier,
  hypernetLearner,
  hyperTransformer,
  type Learner,
  latentLearner,
  type MamlOptions,
  maml,
  metaNetworks,
  metaSgd,
  type NoiseLearner,
  noiseLearner,
  pretrained,
  prototypes,
  reptile,
  ridgeLearner,
} from '../meta/index.js';
import { batchNorm, cell, dense, flatten, fourierFeatures, serial } from '../nn/index.js';
import { gelu, normal, relu, split } from '../ops/index.js';
import {
  adam,
  byPart,
  chain,
  clipByGlobalNorm,
  cosineSchedule,
  linearSchedule,
  type Schedule,
  sgd,
  type Transform,
  warmupSchedule,
} from '../optim/index.js';
import { type Figures, gpFigures, noiseFigures } from './figures.js';

/** Ways of learning from tasks the command line knows; `pooled` is one network for all tasks, blind to support sets. */
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
  'metanetworks',
  'search',
  'ridge',
  'finetune',
  'pooled',
  'separate',
] as const;
export type Method = (typeof METHODS)[number];

/**
 * Protocols of Omniglot: two ways of dividing its characters (see `omniglotClasses`), and three in which the test is the
 * 20 official one-shot runs (Lake et al. 2015) and the training set all 30 background alphabets or the five of one of
 * the two minimal sets.
 */
export const PROTOCOLS = ['vinyals', 'lake', 'runs', 'small1', 'small2'] as const;
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
  /** `shotsAt`: support rows of a step, where they change from step to step. */
  readonly training: TaskSizes & { readonly family: TaskFamily; readonly shotsAt?: (step: number) => number };
  /** `tasks` is the size of one batch of the evaluation; `fixed` are the tasks, where they are not drawn. */
  readonly testing: TaskSizes & { readonly family: TaskFamily; readonly fixed?: TaskBatch };
  /** The learner that takes gradient steps from where this one begins a task. */
  readonly starting?: (options: MamlOptions) => Learner;
  /** Further figures of the trained learner. */
  readonly figures?: Figures;
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
  /** Classes of a test task of Omniglot; 5 unless given. */
  readonly ways?: number;
  /** Numbers of context of CAVIA; 4 unless given. */
  readonly context?: number;
  /** Given where validation tasks are looked at: classes are then held out for them. */
  readonly validate?: number;
  /** Whether norms of convolutional embeddings are by the batch, so that a query row is seen beside the others. */
  readonly transductive?: boolean;
}

/** Tasks that are learned one after the other, or one alone: see `trainSequence`. */
export const SEQUENCES = ['mnist', 'split-mnist', 'permuted-mnist'] as const;
export type Sequence = (typeof SEQUENCES)[number];

const BUILT_IN = ['sinusoid', 'linear', 'gp', 'two-modes', 'omniglot'];

/** The method of a task that is not told which. */
export const methodOf = (task: string): Method => (task === 'linear' ? 'ridge' : 'hypernet');

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
  if (task !== 'omniglot' && options.ways !== undefined)
    throw new ArgumentError(`train: --ways is for omniglot; expected none for ${task}`);
  if (options.method !== 'cavia' && options.context !== undefined)
    throw new ArgumentError(`train: --context is for cavia; expected none for ${options.method}`);
  switch (task) {
    case 'sinusoid':
      return forFamily(sinusoid, options);
    case 'linear':
      return forFamily(linearTasks(), options);
    case 'gp':
      return options.method === 'hypernet' && !options.transductive
        ? gpRecipe(gpTasks())
        : forFamily(gpTasks(), options);
    case 'two-modes':
      return forFamily(twoModes, options);
    case 'omniglot':
      return omniglotRecipe(options);
    default:
      throw new ArgumentError(
        `train: '${task}' is no task; expected one of ${[...BUILT_IN, ...SEQUENCES].join(', ')}, ` +
          'or the path of a module like ./task.mjs',
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

function forFamily(family: TaskFamily, options: RecipeOptions): Recipe {
  if (family.kind === 'classification') return classification(family, options);
  if (options.transductive) throw noNormByBatch(family, options.method);
  return regression(family, options);
}

const noNormByBatch = (family: TaskFamily, method: Method): ArgumentError =>
  new ArgumentError(
    `train: --transductive is for embeddings by conv4; expected none for ${method} on ${family.name}`,
  );

/** A rate that rises for 200 steps and falls to a hundredth along a cosine. */
function warmCosine(peak: number, steps: number): Schedule {
  const rise = Math.min(200, Math.ceil(steps / 10));
  return warmupSchedule(rise, cosineSchedule(peak, Math.max(steps - rise, 1), { floor: 0.01 }));
}

/** Adam by such a rate; gradients have norm `clip` at most. */
const adamTo =
  (peak: number, clip: number) =>
  (steps: number): Transform<any> =>
    chain(clipByGlobalNorm(clip), adam(warmCosine(peak, steps)));

/**
 * 10 support rows, as in the sinusoid experiments of Finn et al. 2017; the target is their 40-40 network. Learners that
 * take gradient steps train with one (Reptile with ten) and are shown with ten beside it.
 */
function regression(family: TaskFamily, { method, context = 4 }: RecipeOptions): Recipe {
  const { inShape, outSize, shots = 10 } = family;
  const hidden = [dense(40), relu, dense(40), relu];
  const head = dense(outSize, { gain: 1 });
  const target = serial(...hidden, head);
  const common = {
    task: family.name,
    optimiser: adamTo(1e-3, 1),
    training: { family, tasks: 25, shots, queries: 10 },
    testing: { family, tasks: 100, shots, queries: 50 },
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
      const training = { family, tasks: 32, shots, queries: 20 };
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
      return {
        ...common,
        optimiser: adamTo(2e-3, 1),
        learner,
        starting: how => fineTuned(hyper, how),
        training,
        steps: 20_000,
      };
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
      return stepping(options => cavia(target, inShape, { ...options, contextSize: context }), {
        steps: 1,
        learningRate: 1,
      });
    case 'reptile':
      return {
        ...common,
        learner: reptile(target, inShape, { steps: 10, learningRate: 0.005 }),
        starting: how => maml(target, inShape, how),
        optimiser: steps => sgd(linearSchedule(1, 0.05, steps)),
      };
    case 'finetune':
      return { ...common, learner: pretrained(target, inShape, { steps: 10, learningRate: 0.003 }) };
    case 'metanetworks':
      return {
        ...common,
        learner: metaNetworks(inShape, outSize, { cell: cell(2) }),
        optimiser: steps => chain(clipByGlobalNorm(1), adam(cosineSchedule(2e-3, steps, { floor: 0.01 }))),
        training: { family, tasks: 32, shots: 10, queries: 20 },
      };
    case 'search': {
      const options = { steps: 50, learningRate: 0.003 };
      return { ...common, learner: architectureSearch(inShape, outSize, { cell: cell(2) }, options) };
    }
    case 'pooled':
      return {
        ...common,
        learner: pretrained(target, inShape, { steps: 0, learningRate: 0 }),
        steps: 20_000,
      };
    case 'noise':
    case 'noise-spread':
      return {
        ...common,
        ...drawn(linearNoise(inShape, outSize, method === 'noise' ? 0 : 1)),
        optimiser: adamTo(1e-2, 1),
        training: { family, tasks: 64, shots, queries: 20 },
        steps: 2500,
      };
    case 'ridge':
      return {
        ...common,
        learner: ridgeLearner(
          hypernet({
            target: dense(outSize, { bias: false, gain: 1 }),
            inShape,
            condition: description(4),
            head: fullHead({ base: false }),
          }),
        ),
        optimiser: adamTo(1e-2, 1),
        training: { family, tasks: 64, shots, queries: 20 },
        steps: 3000,
      };
    case 'protonet':
    case 'hypertransformer':
    case 'hypertransformer-logits':
    case 'separate':
      throw new ArgumentError(`${method} is no method for regression like ${family.name}; expected another`);
  }
}

const drawn = (learner: NoiseLearner) => ({ learner, figures: noiseFigures(learner) });

/**
 * The neural-process comparison: 10 to 20 rows of support, and networks that say how sure they are. Rows are read by
 * their Fourier features of twice the width of the domain, which has ten length scales.
 */
function gpRecipe(family: GpFamily): Recipe {
  const features = fourierFeatures(10, 8);
  const { inShape } = family;
  const encoder = setEncoder([128, 128, 256]);
  const hyper = hypernet<Support>({
    target: serial(features, dense(64), gelu, dense(64), gelu, dense(2, { gain: 1 })),
    inShape,
    condition: () => {
      const inner = encoder({ inShape: features.outShape(inShape), outShape: [1] });
      return {
        ...inner,
        encode: (params, { x, y }: Support) => inner.encode(params, { x: features.apply({}, x), y }),
        example: (key, tasks) => {
          const [forX, forY] = split(key);
          return { x: normal(forX, [tasks, 10, 1]), y: normal(forY, [tasks, 10, 1]) };
        },
      };
    },
    trunk: serial(dense(256), gelu, dense(256), gelu, dense(64)),
    activation: gelu,
    head: fullHead({ base: true }),
  });
  const sizes = { tasks: 32, shots: 10, queries: 32 };
  const example = () => drawEpisodes(family, { split: 'train', seed: 0, first: 0, ...sizes }).support;
  const learner = gaussianLearner(hyper, example);
  return {
    task: family.name,
    learner,
    optimiser: adamTo(2e-3, 1),
    training: { family, ...sizes, shotsAt: step => 10 + (step % 11) },
    testing: { family, tasks: 100, shots: 10, queries: 50 },
    figures: gpFigures(family, learner),
    steps: 15_000,
    record: {},
  };
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

/**
 * Learners for classes of a family of its own, with as many ways in training as in the test. Images that four halvings
 * leave something of are embedded by convolutions of so many channels, all else by a small dense network.
 */
function classification(family: TaskFamily, { method, transductive }: RecipeOptions, channels = 32): Recipe {
  const { inShape, outSize, shots = 1 } = family;
  const images = inShape.length === 3 && Math.min(inShape[0], inShape[1]) >= 16;
  if (transductive && (!images || method.startsWith('hypertransformer'))) throw noNormByBatch(family, method);
  const embed = images
    ? conv4(channels, transductive ? { norm: batchNorm } : {})
    : serial(flatten(inShape.length), dense(64), relu, dense(64, { gain: 1 }));
  const common = {
    task: family.name,
    training: { family, tasks: 4, shots, queries: 5 },
    testing: { family, tasks: 10, shots, queries: 15 },
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
      return {
        ...common,
        learner: hyperTransformer(inShape, { generate }),
        optimiser: steps =>
          chain(
            clipByGlobalNorm(10),
            byPart({ shared: adam(warmCosine(6e-3, steps)), generators: adam(warmCosine(1.5e-3, steps)) }),
          ),
      };
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
    case 'pooled':
      return { ...common, learner: pretrained(target, inShape, { steps: 0, learningRate: 0 }) };
    case 'cavia':
    case 'latent':
    case 'noise':
    case 'noise-spread':
    case 'metanetworks':
    case 'search':
    case 'ridge':
    case 'separate':
      throw new ArgumentError(
        `${method} is no method for classification like ${family.name}; expected another`,
      );
  }
}

/** Characters held out for validation where there is one, as in the list of Snell et al. 2017: 1028, 172, 423. */
const HELD_OUT = 172;

/** Ways of learning that compare classes, whatever their number. */
const COMPARING: readonly Method[] = ['hypernet', 'protonet', 'hypertransformer', 'hypertransformer-logits'];

/**
 * 1-shot tasks of unseen characters, 5-way unless told. Learners that compare classes train with 30 of them at a time, or
 * 60 for tests of 20 ways or more, which is harder and so teaches more (Snell et al. 2017).
 */
function omniglotRecipe(options: RecipeOptions): Recipe {
  const { method, protocol, data, ways = 5, validate } = options;
  const own = data !== undefined && basename(resolve(data)) === 'omniglot';
  const root = own ? dirname(resolve(data)) : data;
  if (protocol !== 'vinyals' && protocol !== 'lake') return oneShotRuns(options, protocol, root);
  const omniglot = loadOmniglot(root);
  omniglot.preload();
  const split = { split: protocol, validation: validate === undefined ? 0 : HELD_OUT };
  const testing = omniglotEpisodes(omniglot, { ...split, ways });
  const recipe = classification(testing, options);
  const { train, test } = omniglotClasses(omniglot, split);
  const record = { trainClasses: JSON.stringify(train), testClasses: JSON.stringify(test) };
  if (!COMPARING.includes(method)) return { ...recipe, record };
  const family = omniglotEpisodes(omniglot, { ...split, ways: trainingWays(method, ways) });
  return { ...recipe, training: { family, tasks: 1, shots: 1, queries: 5 }, record };
}

/** A generated network's cost grows with the support set, so that hypertransformers train as they are tested. */
const trainingWays = (method: Method, ways: number): number => {
  if (method !== 'hypernet' && method !== 'protonet') return ways;
  return ways < 20 ? Math.max(30, ways) : Math.max(60, ways);
};

/** The 20 official runs as the test, tasks made like them from the background alphabets as the training. */
function oneShotRuns(options: RecipeOptions, protocol: 'runs' | 'small1' | 'small2', root?: string): Recipe {
  const omniglot = loadOmniglot(root, protocol === 'runs' ? 'background' : `background_${protocol}`);
  const fixed = oneShotBatch(loadOneShotRuns(root));
  const family: ClassificationFamily = withinAlphabets(omniglot, fixed.outSize);
  const recipe = classification(family, options, 64);
  return {
    ...recipe,
    training: { family, tasks: 1, shots: 1, queries: 3 },
    testing: { ...recipe.testing, fixed },
    steps: 6000,
    record: { trainClasses: JSON.stringify(omniglot.background) },
  };
}
