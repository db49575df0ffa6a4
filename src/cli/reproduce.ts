/** `weightloom reproduce [ID...]`: trains what the project promises to show, and writes down what came of it. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { ArgumentError, CheckpointError } from '../core/errors.js';
import { writeFileAtomic } from '../io/files.js';
import { flag, integer, parse, text } from './args.js';
import { isSequence, trainSequence } from './continual.js';
import { type Figure, type Job, type Outcome, ROWS, type Row } from './rows.js';
import { compareStarts } from './starts.js';
import { TEST_TASKS, trainTask } from './train.js';

/** The options of `reproduce`. */
export const reproduceSpec = {
  name: 'reproduce',
  rest: 'ID',
  options: {
    seed: integer(0, 0),
    threads: integer(1, 1),
    data: text('the folder of the data sets', undefined),
    out: text('a folder', 'docs'),
    again: flag(),
    list: flag(),
    json: flag(),
  },
};

/** Outcomes by what was trained: see `keyOf`. */
type Kept = Record<string, Outcome & { readonly machine: string }>;

/** Runs the command and resolves to its exit code: 0, 1 if a figure is not what is asked of it, 130 if interrupted. */
export async function reproduceCommand(args: string[]): Promise<number> {
  const { positionals, options } = parse(reproduceSpec, args);
  const unknown = positionals.find(id => !Object.hasOwn(ROWS, id));
  if (unknown !== undefined)
    throw new ArgumentError(
      `reproduce: '${unknown}' is no row; expected one of ${Object.keys(ROWS).join(', ')}`,
    );
  if (options.list) {
    for (const [id, { title }] of Object.entries(ROWS)) console.log(`${id.padEnd(17)} ${title}`);
    return 0;
  }
  const interrupt = new AbortController();
  const onInterrupt = () => interrupt.abort();
  process.on('SIGINT', onInterrupt);
  try {
    const ids = positionals.length > 0 ? positionals : Object.keys(ROWS);
    const found: Record<string, Figure[]> = {};
    for (const id of ids) found[id] = await reproduce(ROWS[id], options, interrupt.signal);
    if (options.json) console.log(JSON.stringify(found));
    else console.log(Object.entries(found).map(summary).join('\n'));
    return Object.values(found).flat().every(holds) ? 0 : 1;
  } catch (error) {
    if (error === interrupt.signal.reason) return 130;
    throw error;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

interface Options {
  readonly seed: number;
  readonly threads: number;
  readonly data: string | undefined;
  readonly out: string;
  readonly again: boolean;
}

const linesOf = (out: string) => join(out, 'results.jsonl');

/** What was trained, as a command line: equal keys mean equal outcomes, but for the seconds. */
const keyOf = ({ task, scores: _, ...rest }: Job, seed: number): string =>
  [task, ...Object.entries({ ...rest, seed }).map(([name, value]) => `--${name} ${value}`)].join(' ');

/** Trains the jobs of a row that are not kept yet, keeps each as it is done, and writes the table anew. */
async function reproduce(row: Row, options: Options, signal: AbortSignal): Promise<Figure[]> {
  const { seed, out, again } = options;
  for (const job of Object.values(row.jobs)) {
    const key = keyOf(job, seed);
    if (!again && Object.hasOwn(readKept(out), key)) continue;
    console.error(`train ${key}`);
    const outcome = await trainJob(job, key, options, signal);
    const machine = `${cpus()[0]?.model ?? 'unknown'}, ${options.threads} thread${options.threads > 1 ? 's' : ''}`;
    await writeKept(out, { ...readKept(out), [key]: { ...outcome, machine } });
  }
  const kept = readKept(out);
  await writeKept(out, kept);
  return figuresOf(row, kept, seed)!;
}

async function trainJob(job: Job, key: string, options: Options, signal: AbortSignal): Promise<Outcome> {
  const { scores: keepScores, task, ...rest } = job;
  const how = {
    backend: 'cpu' as const,
    method: undefined,
    protocol: undefined,
    ways: undefined,
    context: undefined,
    validate: undefined,
    patience: undefined,
    transductive: false,
    steps: undefined,
    tasks: TEST_TASKS,
    threads: options.threads,
    data: options.data,
    seed: options.seed,
    resume: false,
    json: false,
    ...rest,
    out: join('runs', 'reproduce', key.replaceAll(/[^\w-]+/g, '-')),
  };
  if (task === 'starts') {
    const { seed, threads } = options;
    return outcomeOf(await compareStarts({ seed, threads, tasks: TEST_TASKS, signal }));
  }
  if (isSequence(task)) return outcomeOf(await trainSequence(task, how, signal));
  const { result, scores } = await trainTask(task, how, signal);
  return { ...outcomeOf(result), ...(keepScores && { scores: Array.from(scores, x => +x.toPrecision(6)) }) };
}

/** What is worth keeping: no path, and nothing of the time before training. */
const outcomeOf = (result: Outcome): Outcome => {
  const { method, backend, steps, seconds, cpuSeconds, after, learned, baseline, figures, weights } = result;
  return { method, backend, steps, seconds, cpuSeconds, after, learned, baseline, figures, weights };
};

/** Throws CheckpointError if the file is not one of ours. */
function readKept(out: string): Kept {
  const path = linesOf(out);
  if (!existsSync(path)) return {};
  try {
    const lines = readFileSync(path, 'utf8').trim().split('\n');
    return Object.fromEntries(lines.map(line => JSON.parse(line)).map(({ run, ...kept }) => [run, kept]));
  } catch (error) {
    throw new CheckpointError(`${path} holds no results: ${(error as Error).message}`, { cause: error });
  }
}

async function writeKept(out: string, kept: Kept): Promise<void> {
  const sorted = Object.entries(kept).sort(([a], [b]) => (a < b ? -1 : 1));
  const lines = sorted.map(([run, outcome]) => `${JSON.stringify({ run, ...outcome })}\n`);
  const encode = (text: string) => new TextEncoder().encode(text);
  await mkdir(out, { recursive: true });
  await writeFileAtomic(linesOf(out), encode(lines.join('')));
  await writeFileAtomic(join(out, 'results.md'), encode(document(Object.fromEntries(sorted))));
}

/** The figures of a row, null where a training is missing. */
function figuresOf({ jobs, figures }: Row, kept: Kept, seed: number): Figure[] | null {
  const outcomes = Object.entries(jobs).map(([name, job]) => [name, kept[keyOf(job, seed)]] as const);
  return outcomes.every(([, outcome]) => outcome) ? figures(Object.fromEntries(outcomes)) : null;
}

/** True if a figure is what is asked of it, or nothing is. */
const holds = ({ value, least = -Infinity, most = Infinity }: Figure): boolean =>
  value >= least && value <= most;

const digits = (value: number): string =>
  Math.abs(value) >= 10
    ? value.toFixed(2)
    : value !== 0 && Math.abs(value) < 1e-3
      ? value.toExponential(1)
      : value.toPrecision(3);
const shown = ({ value, ci95, unit }: Figure): string =>
  `${digits(value)}${ci95 === undefined ? '' : ` ± ${digits(ci95)}`}${unit && ` ${unit}`}`;
const asked = ({ least, most }: Figure): string =>
  [least !== undefined && `>= ${least}`, most !== undefined && `<= ${most}`].filter(Boolean).join(', ');

const summary = ([id, figures]: [string, Figure[]]): string =>
  figures
    .map(
      f =>
        `${id.padEnd(17)} ${f.name}: ${shown(f)}${asked(f) && ` (${asked(f)}: ${holds(f) ? 'yes' : 'NO'})`}`,
    )
    .join('\n');

/** The whole table, of seed 0 and of every other seed that all trainings of a row were run with. */
function document(kept: Kept): string {
  const seeds = [...new Set(Object.keys(kept).map(key => Number(/--seed (\d+)$/.exec(key)?.[1] ?? 0)))].sort(
    (a, b) => a - b,
  );
  const sections = Object.entries(ROWS).map(([id, row]) => {
    const parts = seeds.flatMap(seed => {
      const figures = figuresOf(row, kept, seed);
      return figures ? [table(row, figures, kept, seed)] : [];
    });
    return [`## ${id}`, '', `${row.title}.`, '', ...(parts.length > 0 ? parts : ['Not run yet.', ''])].join(
      '\n',
    );
  });
  return [
    '# Results',
    '',
    'Made by `npm run -s weightloom -- reproduce [ID...]`, which trains what is not in `results.jsonl` yet. Intervals are of',
    '95 % over the test tasks: 600 unless a command says otherwise, the tasks themselves for sequences of tasks, 20 for the',
    'official runs. Seconds are those of training, in brackets those of the processor: other work may have shared the machine.',
    'Evaluations are not transductive: a query row is answered by itself.',
    '',
    ...sections,
  ].join('\n');
}

function table(row: Row, figures: Figure[], kept: Kept, seed: number): string {
  const lines = figures.map(
    f =>
      `| ${f.name} | ${shown(f)} | ${asked(f)} | ${asked(f) && (holds(f) ? 'yes' : '**no**')} | ${f.published ?? ''} |`,
  );
  const runs = Object.values(row.jobs).map(job => {
    const key = keyOf(job, seed);
    const { steps, seconds, cpuSeconds, machine } = kept[key];
    const ofProcessor = cpuSeconds === undefined ? '' : ` (${cpuSeconds.toFixed(1)} s of processor)`;
    const command = job.task === 'starts' ? 'reproduce starts' : `train ${key}`;
    return `- \`${command}\`: ${steps} steps, ${seconds.toFixed(1)} s${ofProcessor}; ${machine}`;
  });
  return [
    '| figure | here | asked | holds | published |',
    '|---|---|---|---|---|',
    ...lines,
    '',
    ...runs,
    '',
  ].join('\n');
}
