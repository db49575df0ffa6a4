/** What the project promises to show: trainings, and the figures that follow from them. */
import { paired, type Summary } from '../meta/index.js';
import type { Method, Protocol } from './recipes.js';
import type { Result } from './run.js';

/** One training, as `train` is told it; steps not given are the task's own. `starts` is `compareStarts`. */
export interface Job {
  readonly task: string;
  readonly method?: Method;
  readonly protocol?: Protocol;
  readonly ways?: number;
  readonly context?: number;
  readonly steps?: number;
  /** Test tasks; 600 unless given. */
  readonly tasks?: number;
  /** Keeps the score of every test task, for comparisons task by task. */
  readonly scores?: boolean;
}

/** What is kept of a training. */
export interface Outcome {
  readonly method: string;
  readonly backend: string;
  readonly steps: number;
  /** Of training, evaluations not included; `cpuSeconds` are those of the processor. */
  readonly seconds: number;
  readonly cpuSeconds?: number;
  readonly after: Result;
  /** Of sequences of tasks: each just after it was learned. */
  readonly learned?: Result;
  readonly baseline?: Result & { readonly name: string };
  readonly figures?: readonly Result[];
  readonly weights?: { readonly target: number; readonly learned: number };
  readonly scores?: readonly number[];
}

/** A number with what it must be, where something is asked of it, and what was published. */
export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly ci95?: number;
  readonly unit: '' | '%' | 'points' | 's' | 'nats';
  readonly least?: number;
  readonly most?: number;
  readonly published?: string;
}

export interface Row {
  readonly title: string;
  readonly jobs: Readonly<Record<string, Job>>;
  figures(outcomes: Readonly<Record<string, Outcome>>): Figure[];
}

type Asked = Omit<Partial<Figure>, 'name' | 'value' | 'ci95'>;

const figure = (
  name: string,
  { mean, ci95 }: { mean: number; ci95?: number },
  asked: Asked = {},
): Figure => ({
  name,
  value: mean,
  ci95,
  unit: '',
  ...asked,
});
const percent = (name: string, { mean, ci95 }: Summary, asked: Asked = {}): Figure =>
  figure(name, { mean: 100 * mean, ci95: 100 * ci95 }, { unit: '%', ...asked });
const points = (name: string, share: number, asked: Asked = {}): Figure =>
  figure(name, { mean: 100 * share }, { unit: 'points', ...asked });
const seconds = (name: string, { seconds }: Outcome, most: number): Figure =>
  figure(`${name}, training`, { mean: seconds }, { unit: 's', most });
/** How much of what was learned is lost at the end. */
const lost = ({ learned, after }: Outcome): number => learned!.mean - after.mean;

/** What a network made for the task is worth over one network for all tasks. */
const againstPooled = (title: string, hypernet: Job, pooled: Job): Row => ({
  title,
  jobs: { hypernet: { ...hypernet, scores: true }, pooled: { ...pooled, scores: true } },
  figures: ({ hypernet, pooled }) => {
    const gain = paired(hypernet.scores!, pooled.scores!);
    const as = hypernet.after.metric === 'accuracy' ? percent : figure;
    return [
      as('generated', hypernet.after),
      as('pooled', pooled.after),
      as('difference, paired', gain, as === percent ? { unit: 'points', least: 0 } : { most: 0 }),
    ];
  },
});

const hyperTransformerJob = (method: Method, steps: number): Job => ({
  task: 'omniglot',
  method,
  ways: 20,
  tasks: 1024,
  scores: true,
  steps,
});

/** By their names. */
export const ROWS: Readonly<Record<string, Row>> = {
  sinusoid: {
    title: 'Sinusoids from 10 points, a hypernetwork without inner steps',
    jobs: { hypernet: { task: 'sinusoid' } },
    figures: ({ hypernet }) => [
      figure('squared error', hypernet.after, { most: 0.005, published: 'no table for a hypernetwork' }),
      seconds('hypernetwork', hypernet, 60),
    ],
  },
  maml: {
    title: 'Sinusoids from 10 points, second-order MAML',
    jobs: { maml: { task: 'sinusoid', method: 'maml', steps: 70_000 } },
    figures: ({ maml }) => [
      figure('squared error, 1 step', maml.after, {
        most: 0.5,
        published: '0.4 to 0.5, read off a plot (Finn et al. 2017)',
      }),
      figure('squared error, 10 steps', maml.baseline!, { most: 0.25, published: '0.1 to 0.2, read off it' }),
    ],
  },
  cavia: {
    title: 'Sinusoids from 10 points, CAVIA: a family of two numbers needs two numbers of context',
    jobs: {
      one: { task: 'sinusoid', method: 'cavia', context: 1 },
      two: { task: 'sinusoid', method: 'cavia', context: 2 },
    },
    figures: ({ one, two }) => [
      figure('squared error, one number', one.after, { published: '0.84 (Zintgraf et al. 2019)' }),
      figure('squared error, two numbers', two.after, { published: '0.21' }),
      figure('two over one', { mean: two.after.mean / one.after.mean }, { most: 0.5, published: '0.25' }),
    ],
  },
  starts: {
    title:
      'Sinusoids from 10 points: gradient steps from a generated start, from that of Reptile and from a random one',
    jobs: { starts: { task: 'starts' } },
    figures: ({ starts }) =>
      starts.figures!.map(({ metric, ...found }) =>
        figure(metric, found, / less /.test(metric) ? { most: 0 } : {}),
      ),
  },
  linear: {
    title: 'Linear tasks in a subspace, from 10 rows with noise of variance 0.01',
    jobs: { ridge: { task: 'linear' } },
    figures: ({ ridge }) => [figure('squared error', ridge.after, { most: 0.02 })],
  },
  gp: {
    title: 'Draws from a Gaussian process against its exact posterior',
    jobs: { hypernet: { task: 'gp' } },
    figures: ({ hypernet }) =>
      hypernet.figures!.map(({ metric, ...found }) =>
        metric.startsWith('gap')
          ? figure(metric, found, { unit: 'nats', most: 0.3 })
          : percent(metric, found, { least: 63, most: 73 }),
      ),
  },
  'two-modes': {
    title: 'Weights from noise alone: two modes, with and without a term that keeps draws apart',
    jobs: {
      plain: { task: 'two-modes', method: 'noise', scores: true },
      spread: { task: 'two-modes', method: 'noise-spread', scores: true },
    },
    figures: ({ plain, spread }) => [
      figure('variance of a weight over noise, without', plain.figures![0], { most: 1e-4 }),
      figure('variance of a weight over noise, with', spread.figures![0], { least: 0.1 }),
      figure('squared error, without', plain.after),
      figure('squared error, with', spread.after),
      figure('with less without, paired', paired(spread.scores!, plain.scores!), { most: 0 }),
    ],
  },
  'split-mnist': {
    title: 'Split MNIST (10,000 pictures): one chunked generator smaller than one of the networks it makes',
    jobs: {
      hypernet: { task: 'split-mnist' },
      separate: { task: 'split-mnist', method: 'separate' },
      finetune: { task: 'split-mnist', method: 'finetune' },
    },
    figures: ({ hypernet, separate, finetune }) => [
      percent('networks of their own', separate.after, {
        least: 99,
        published: '99.77, on 60,000 pictures (Henning et al. 2021)',
      }),
      percent('hypernetwork, just learned', hypernet.learned!),
      percent('hypernetwork, at the end', hypernet.after, { published: '99.72' }),
      points('networks of their own less hypernetwork', separate.after.mean - hypernet.after.mean, {
        most: 0.5,
      }),
      points('lost by fine-tuning', lost(finetune), { least: 5 }),
      figure(
        'numbers learned over weights of one network',
        { mean: hypernet.weights!.learned / hypernet.weights!.target },
        { most: 1, published: '89,524 / 89,610' },
      ),
    ],
  },
  'permuted-mnist': {
    title: 'Permuted MNIST, 10 tasks (10,000 pictures)',
    jobs: {
      hypernet: { task: 'permuted-mnist' },
      finetune: { task: 'permuted-mnist', method: 'finetune' },
    },
    figures: ({ hypernet, finetune }) => [
      percent('hypernetwork, just learned', hypernet.learned!, { least: 90 }),
      percent('hypernetwork, at the end', hypernet.after, {
        published: '95.05, on 60,000 pictures (Henning et al. 2021)',
      }),
      points('lost by the hypernetwork', lost(hypernet), { most: 2.5 }),
      percent('fine-tuning, at the end', finetune.after, { published: '47.89' }),
      points('lost by fine-tuning', lost(finetune), { least: 25 }),
    ],
  },
  mnist: {
    title: 'A generated kernel of 12,544 weights in a convolutional network (10,000 pictures)',
    jobs: { hypernet: { task: 'mnist' }, separate: { task: 'mnist', method: 'separate' } },
    figures: ({ hypernet, separate }) => [
      percent('plain network', separate.after, { published: '99.28, on 60,000 pictures (Ha et al. 2017)' }),
      percent('generated kernel', hypernet.after, { published: '99.24' }),
      points('plain less generated', separate.after.mean - hypernet.after.mean, { most: 0.3 }),
    ],
  },
  'omniglot-5': {
    title: 'Omniglot, 5-way 1-shot, 423 unseen characters of all alphabets',
    jobs: { hypernet: { task: 'omniglot' } },
    figures: ({ hypernet }) => [
      percent('generated classifier', hypernet.after, {
        least: 98.4,
        published: 'ProtoNet 98.8 (Snell et al. 2017), reproduced 98.2',
      }),
      percent('class means of its embedding', hypernet.baseline!),
      seconds('generated classifier', hypernet, 600),
    ],
  },
  'omniglot-20': {
    title: 'Omniglot, 20-way 1-shot, 423 unseen characters of all alphabets',
    jobs: {
      protonet: { task: 'omniglot', method: 'protonet', ways: 20 },
      hypernet: { task: 'omniglot', ways: 20 },
    },
    figures: ({ protonet, hypernet }) => [
      percent('ProtoNet', protonet.after, {
        least: 95,
        published: '96.0 (Snell et al. 2017), reproduced 95.8',
      }),
      percent('generated classifier', hypernet.after),
    ],
  },
  'omniglot-runs': {
    title: 'The 20 official one-shot runs, 20 ways within an unseen alphabet, trained on the background set',
    jobs: { protonet: { task: 'omniglot', method: 'protonet', protocol: 'runs' } },
    figures: ({ protonet: { after } }) => [
      percent(
        'error of ProtoNet',
        { ...after, mean: 1 - after.mean },
        {
          most: 15,
          published:
            'people 4.5, BPL 3.3, Siamese network 8.0, convolutional network 13.5, ProtoNet 13.7, Hausdorff distance 38.8',
        },
      ),
    ],
  },
  'omniglot-small': {
    title: 'The 20 official one-shot runs, trained on five alphabets',
    jobs: {
      small1: { task: 'omniglot', method: 'protonet', protocol: 'small1' },
      small2: { task: 'omniglot', method: 'protonet', protocol: 'small2' },
    },
    figures: ({ small1, small2 }) =>
      Object.entries({ small1, small2 }).map(([name, { after }]) =>
        percent(`error of ProtoNet, background ${name}`, { ...after, mean: 1 - after.mean }),
      ),
  },
  hypertransformer: {
    title:
      'Omniglot, 20-way 1-shot, networks of 8 channels: all layers generated against the logits alone, by two budgets; ' +
      'rates and the shorter budget were chosen on tasks of the test split, so its gain is optimistic',
    jobs: {
      all: hyperTransformerJob('hypertransformer', 1200),
      logits: hyperTransformerJob('hypertransformer-logits', 1500),
      allLonger: hyperTransformerJob('hypertransformer', 3600),
      logitsLonger: hyperTransformerJob('hypertransformer-logits', 4500),
    },
    figures: ({ all, logits, allLonger, logitsLonger }) => {
      const difference = paired(all.scores!, logits.scores!);
      const published = '87.2 (Zhmoginov et al. 2022, 4,000,000 steps); MAML++ 81.4';
      return [
        percent('all layers', all.after, { published }),
        percent('logits alone', logits.after),
        percent('all less logits, paired', difference, { unit: 'points' }),
        points('lower end of its interval', difference.mean - difference.ci95, { least: 0 }),
        figure(
          'processor seconds of all over those of logits',
          { mean: all.cpuSeconds! / logits.cpuSeconds! },
          { most: 1.02 },
        ),
        percent('all layers, trained longer', allLonger.after),
        percent('logits alone, trained longer', logitsLonger.after),
        percent('all less logits, trained longer, paired', paired(allLonger.scores!, logitsLonger.scores!), {
          unit: 'points',
        }),
        figure('processor seconds of all over those of logits, trained longer', {
          mean: allLonger.cpuSeconds! / logitsLonger.cpuSeconds!,
        }),
      ];
    },
  },
  ...Object.fromEntries(
    (
      [
        ['control', 'A cart of hidden mass and friction, from five transitions', 3000],
        ['recommend', "A user's ratings, from eight of them", 3000],
        ['drift', 'Alarms in a drifting stream, from four readings of each kind', 600],
        ['languages', 'The next letter in an unknown language, from four samples a letter', 1000],
      ] as const
    ).map(([id, title, steps]) => {
      const task = `examples/tasks/${id}.mjs`;
      return [id, againstPooled(title, { task, steps }, { task, steps, method: 'pooled' })];
    }),
  ),
};
