/** The commands `train` and `eval`, run as a user runs them. */
import { type ChildProcess, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { dataFolder } from '../src/data/path.js';
import { readSafetensors, writeSafetensors } from '../src/io/safetensors.js';

const dist = join(import.meta.dirname, '../dist/src');
const main = join(dist, 'cli/main.js');
const root = mkdtempSync(join(tmpdir(), 'weightloom-train-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folders = 0;
const folder = () => join(root, `run${folders++}`);
const checkpointIn = (out: string) => join(out, 'checkpoint.safetensors');

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

function begin(
  args: string[],
  env: Record<string, string> = {},
): { child: ChildProcess; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [main, ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout!.on('data', text => (stdout += text));
  child.stderr!.on('data', text => (stderr += text));
  const ended = new Promise<Ended>(resolve =>
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  );
  return { child, ended };
}
const weightloom = (...args: string[]) => begin(args).ended;

/** Runs a command that must succeed and print one JSON object. */
async function json(...args: string[]) {
  const { code, stdout, stderr } = await weightloom(...args, '--json');
  expect(code, stderr).toBe(0);
  expect(stdout.trimEnd().split('\n')).toHaveLength(1);
  return JSON.parse(stdout);
}

/** Every file of a folder with its bytes. */
const contents = (path: string) =>
  Object.fromEntries(
    readdirSync(path).map(name => [name, readFileSync(join(path, name)).toString('base64')]),
  );

/** Resolves once `happened`; fails if the process ends before. */
async function until(happened: () => boolean, ended: Promise<Ended>): Promise<void> {
  let over: Ended | null = null;
  void ended.then(result => (over = result));
  while (!happened()) {
    expect(over, 'the run ended too early').toBe(null);
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}
const untilSaved = (out: string, ended: Promise<Ended>) => until(() => existsSync(checkpointIn(out)), ended);

/** A few tasks are enough where the figure itself is not what is tested. */
const quick = ['--backend', 'cpu', '--tasks', '4'];

describe('a sinusoid run', () => {
  test('learns, keeps what it promises, and eval repeats its figure', async () => {
    const out = folder();
    const result = await json(
      'train',
      'sinusoid',
      '--backend',
      'cpu',
      '--steps',
      '800',
      '--seed',
      '3',
      '--out',
      out,
    );
    expect(Object.keys(result)).toEqual([
      'task',
      'method',
      'backend',
      'steps',
      'seconds',
      'cpuSeconds',
      'stepsPerSecond',
      'before',
      'after',
      'checkpoint',
    ]);
    expect(result).toMatchObject({ task: 'sinusoid', method: 'hypernet', backend: 'cpu', steps: 800 });
    expect(result.checkpoint).toBe(checkpointIn(out));
    expect(result.after).toMatchObject({ metric: 'mse', tasks: 600 });
    // Zero scores 4.25; 800 steps gave 0.1 to 0.2 on every seed tried.
    expect(result.before.mean).toBeGreaterThan(2);
    expect(result.after.mean + result.after.ci95).toBeLessThan(0.5);

    const again = await json('eval', '--backend', 'cpu', '--checkpoint', result.checkpoint);
    expect(again).toEqual({ task: 'sinusoid', method: 'hypernet', ...result.after });
    const fewer = await json('eval', '--backend', 'cpu', '--checkpoint', result.checkpoint, '--tasks', '50');
    expect(fewer.tasks).toBe(50);
    expect(fewer.mean).not.toBe(again.mean);

    const { metadata } = readSafetensors(readFileSync(result.checkpoint));
    expect(metadata).toEqual({
      task: 'sinusoid',
      method: 'hypernet',
      protocol: 'vinyals',
      seed: '3',
      step: '800',
      steps: '800',
    });
    const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map(line => JSON.parse(line));
    expect(lines.map(line => line.step)).toEqual(Array.from({ length: 800 }, (_, i) => i + 1));
    expect(lines[799].loss).toBeLessThan(lines[0].loss / 5);
    expect(readFileSync(join(out, 'sinusoid.svg'), 'utf8')).toContain('Task 6');
    expect(readFileSync(join(out, 'sinusoid.png')).subarray(1, 4).toString()).toBe('PNG');
  });

  test.each([
    ['maml', 300],
    ['fomaml', 300],
    ['meta-sgd', 300],
    ['anil', 300],
    ['cavia', 300],
    ['latent', 300],
    ['reptile', 3000],
  ])('%s lowers the error too', async (method, steps) => {
    const args = [
      '--method',
      method,
      '--backend',
      'cpu',
      '--steps',
      `${steps}`,
      '--tasks',
      '100',
      '--out',
      folder(),
    ];
    const { before, after } = await json('train', 'sinusoid', ...args);
    expect(after.mean + after.ci95).toBeLessThan(before.mean - before.ci95);
  });
});

describe('resuming', () => {
  test.each(['1', '2'])('after kill -9, on %s threads: the same bytes in the end', async threads => {
    const [whole, cut] = [folder(), folder()];
    const args = [
      'train',
      'sinusoid',
      ...quick,
      '--threads',
      threads,
      '--steps',
      '2000',
      '--seed',
      '5',
      '--json',
    ];
    const straight = await weightloom(...args, '--out', whole);
    expect(straight.code, straight.stderr).toBe(0);

    const { child, ended } = begin([...args, '--out', cut]);
    await untilSaved(cut, ended);
    child.kill('SIGKILL');
    expect((await ended).signal).toBe('SIGKILL');
    const { step } = readSafetensors(readFileSync(checkpointIn(cut))).metadata;
    expect(Number(step)).toBeGreaterThan(0);
    expect(Number(step)).toBeLessThan(2000);

    // Only --resume: what is not said comes from the checkpoint.
    const resumed = await weightloom(
      'train',
      'sinusoid',
      ...quick,
      '--threads',
      threads,
      '--out',
      cut,
      '--resume',
      '--json',
    );
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(contents(cut)['checkpoint.safetensors'] === contents(whole)['checkpoint.safetensors']).toBe(true);
    expect(contents(cut)['metrics.jsonl'] === contents(whole)['metrics.jsonl']).toBe(true);
    expect(JSON.parse(resumed.stdout).after).toEqual(JSON.parse(straight.stdout).after);
  });

  test('with validation: the best look is kept, ends the run, is what counts, and outlives a kill', async () => {
    const [whole, cut] = [folder(), folder()];
    const args = ['train', 'sinusoid', ...quick, '--seed', '5', '--steps', '4000'];
    const watch = ['--validate', '40', '--patience', '2'];
    const straight = await json(...args, ...watch, '--out', whole);
    const { step: last } = readSafetensors(readFileSync(checkpointIn(whole))).metadata;
    expect(straight.checkpoint).toBe(join(whole, 'best.safetensors'));
    expect(Number(last)).toBeLessThan(4000);
    expect(straight.best.step).toBe(Number(last) - 80);
    const again = await json('eval', ...quick, '--checkpoint', straight.checkpoint);
    expect(again).toEqual({ task: 'sinusoid', method: 'hypernet', ...straight.after });

    const { child, ended } = begin([...args, ...watch, '--out', cut]);
    await untilSaved(cut, ended);
    child.kill('SIGKILL');
    await ended;
    const resumed = await weightloom('train', 'sinusoid', ...quick, '--out', cut, '--resume', '--json');
    expect(resumed.stderr).toContain(`validation after ${last} steps: mse`);
    const { after, best } = JSON.parse(resumed.stdout);
    expect({ after, best }).toEqual({ after: straight.after, best: straight.best });
    for (const name of ['best.safetensors', 'checkpoint.safetensors'])
      expect(contents(cut)[name] === contents(whole)[name], name).toBe(true);

    for (const wrong of [
      ['sinusoid', '--patience', '2'],
      ['split-mnist', '--validate', '5'],
    ]) {
      const { code, stderr } = await weightloom('train', ...wrong);
      expect(stderr).toContain('--validate');
      expect(code).toBe(2);
    }
  });

  test('SIGINT saves, exits 130 and says so; the run can go on', async () => {
    const out = folder();
    const { child, ended } = begin([
      'train',
      'sinusoid',
      ...quick,
      '--steps',
      '100000',
      '--out',
      out,
      '--json',
    ]);
    await untilSaved(out, ended);
    child.kill('SIGINT');
    const { code, stdout, stderr } = await ended;
    expect(code).toBe(130);
    expect(stdout).toBe('');
    const { step } = readSafetensors(readFileSync(checkpointIn(out))).metadata;
    expect(stderr).toContain(`interrupted after step ${step} of 100000`);
    const lines = readFileSync(join(out, 'metrics.jsonl'), 'utf8').trim().split('\n');
    expect(lines).toHaveLength(Number(step));
  });

  test('SIGINT in an evaluation ends it at once', async () => {
    const out = folder();
    const args = ['--backend', 'ref', '--tasks', '100000', '--out', out];
    const { child, ended } = begin(['train', 'sinusoid', ...args]);
    await until(() => existsSync(out), ended);
    child.kill('SIGINT');
    const { code, stdout } = await ended;
    expect(code).toBe(130);
    expect(stdout).toBe('');
    expect(readdirSync(out)).toEqual([]);
  });

  test('an option that contradicts the checkpoint is refused', async () => {
    const out = folder();
    await json('train', 'sinusoid', ...quick, '--steps', '3', '--out', out);
    const before = contents(out);
    for (const [args, text] of [
      [['sinusoid', '--seed', '9'], '--seed is 9'],
      [['sinusoid', '--steps', '4'], '--steps is 4'],
      [['sinusoid', '--method', 'maml'], '--method is maml'],
      [['gp'], '--task is gp'],
    ] as const) {
      const { code, stderr } = await weightloom('train', ...args, ...quick, '--out', out, '--resume');
      expect(stderr).toContain(text);
      expect(code).toBe(2);
    }
    expect(contents(out)).toEqual(before);
  });
});

describe('a task of your own', () => {
  const lines = `export default {
    name: 'lines', kind: 'regression', inShape: [1], outSize: 1,
    draw({ support, query }, stream) {
      const slope = stream.normal();
      for (const { n, x, y } of [support, query])
        for (let i = 0; i < n; i++) y[i] = slope * (x[i] = stream.normal());
    },
  };`;

  test('trains and evaluates from its module, which no checkpoint knows the place of', async () => {
    writeFileSync(join(root, 'lines.mjs'), lines);
    const out = folder();
    const result = await json(
      'train',
      './lines.mjs',
      '--backend',
      'cpu',
      '--steps',
      '300',
      '--tasks',
      '50',
      '--out',
      out,
    );
    expect(result.task).toBe('lines.mjs');
    expect(result.after.mean).toBeLessThan(0.1);
    const { checkpoint } = result;
    expect(readFileSync(checkpoint).includes(root)).toBe(false);
    const score = await json('eval', '--checkpoint', checkpoint, '--task', './lines.mjs', ...quick);
    expect(score).toMatchObject({ task: 'lines.mjs', metric: 'mse', tasks: 4 });
  });

  test('of classes: the generated classifier beats chance by far', async () => {
    writeFileSync(
      join(root, 'blobs.mjs'),
      `export default {
        name: 'blobs', kind: 'classification', inShape: [4], outSize: 3,
        draw({ support, query }, stream) {
          const centres = Array.from({ length: 12 }, () => 2 * stream.normal());
          for (const { n, x, y } of [support, query])
            for (let i = 0; i < n; i++) {
              const label = Math.floor((i * 3) / n);
              y[i] = label;
              for (let d = 0; d < 4; d++) x[i * 4 + d] = centres[label * 4 + d] + 0.3 * stream.normal();
            }
        },
      };`,
    );
    const args = ['--backend', 'cpu', '--steps', '100', '--tasks', '50', '--out', folder()];
    const result = await json('train', './blobs.mjs', ...args);
    expect(result.after.metric).toBe('accuracy');
    expect(result.after.mean - result.after.ci95).toBeGreaterThan(0.9);
    expect(result.baseline).toMatchObject({ name: 'class means', metric: 'accuracy', tasks: 50 });
  });
});

describe('Omniglot', () => {
  test.each(['vinyals', 'lake'])(
    '%s: the checkpoint has both class lists, disjoint by character',
    async protocol => {
      const out = folder();
      const result = await json(
        'train',
        'omniglot',
        ...quick,
        '--steps',
        '2',
        '--protocol',
        protocol,
        '--out',
        out,
      );
      expect(result.baseline.name).toBe('class means');
      const { metadata } = readSafetensors(readFileSync(result.checkpoint));
      const [trained, tested] = [metadata.trainClasses, metadata.testClasses].map(
        list => JSON.parse(list) as string[],
      );
      expect([trained.length, tested.length]).toEqual(
        protocol === 'vinyals' ? [4 * 1200, 4 * 423] : [4 * 964, 4 * 659],
      );
      const characters = (classes: string[]) =>
        new Set(classes.map(id => id.replace(/@(0|90|180|270)$/, '')));
      expect(characters(trained).size).toBe(trained.length / 4);
      expect([...characters(tested)].filter(name => characters(trained).has(name))).toEqual([]);
      const again = await json('eval', '--checkpoint', result.checkpoint, ...quick);
      expect(again).toEqual({ task: 'omniglot', method: 'hypernet', ...result.after });
    },
  );
});

test('transductive or not is said, kept with the checkpoint, and refused where no norm is by the batch', async () => {
  writeFileSync(
    join(root, 'spots.mjs'),
    `export default {
      name: 'spots', kind: 'classification', inShape: [16, 16, 1], outSize: 2,
      draw({ support, query }, stream) {
        for (const { n, x, y } of [support, query])
          for (let i = 0; i < n; i++) {
            y[i] = Math.floor((i * 2) / n);
            for (let p = 0; p < 256; p++) x[i * 256 + p] = stream.normal() + (p % 16 < 8 === (y[i] === 0) ? 1 : 0);
          }
      },
    };`,
  );
  const args = ['train', './spots.mjs', ...quick, '--steps', '2', '--out', folder()];
  const plain = await json(...args);
  expect(plain).not.toHaveProperty('transductive');
  const result = await json(...args, '--transductive');
  expect(result.transductive).toBe(true);
  expect(result.after.mean).not.toBe(plain.after.mean);
  const again = await json('eval', '--checkpoint', result.checkpoint, '--task', './spots.mjs', ...quick);
  expect(again.mean).toBe(result.after.mean);
  for (const task of [['gp'], ['./spots.mjs', '--method', 'hypertransformer'], ['mnist']]) {
    const { code, stderr } = await weightloom('train', ...task, '--transductive');
    expect(stderr).toContain('--transductive is for');
    expect(code).toBe(2);
  }
});

describe('what goes wrong', () => {
  test.each([
    [
      'an unknown task',
      ['train', 'nothing'],
      2,
      /'nothing' is no task; expected one of sinusoid, linear, gp, two-modes, omniglot, mnist,/,
    ],
    [
      'a module that is not there',
      ['train', './missing.mjs'],
      2,
      /cannot load the task module \.\/missing\.mjs/,
    ],
    ['no task', ['train'], 2, /TASK missing/],
    ['an unknown method', ['train', 'sinusoid', '--method', 'magic'], 2, /expected one of hypernet, latent/],
    [
      'a method that does not fit',
      ['train', 'gp', '--method', 'protonet'],
      2,
      /protonet is no method for regression like gp/,
    ],
    ['no steps', ['train', 'sinusoid', '--steps', '0'], 2, /a whole number of at least 1/],
    ['a data folder that is missing', ['train', 'omniglot', '--data', './nowhere'], 1, /nowhere.*ERR_DATA/],
    ['nothing to resume', ['train', 'gp', '--resume', '--out', './empty'], 1, /cannot read .*ERR_CHECKPOINT/],
    ['no checkpoint named', ['eval'], 2, /no --checkpoint/],
    ['a checkpoint that is missing', ['eval', '--checkpoint', './none'], 1, /cannot read .*ERR_CHECKPOINT/],
  ] as const)('%s', async (_, args, exit, text) => {
    const { code, stdout, stderr } = await weightloom(...args);
    expect(stderr).toMatch(text);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stdout).toBe('');
    expect(code).toBe(exit);
  });

  test('an archive cut short', async () => {
    const data = join(root, 'data/omniglot');
    mkdirSync(data, { recursive: true });
    for (const name of ['images_background.zip', 'images_evaluation.zip'])
      writeFileSync(join(data, name), readFileSync(join(dataFolder('omniglot'), name)).subarray(0, 50_000));
    const { code, stderr } = await weightloom('train', 'omniglot', '--data', './data', '--out', './never');
    expect(stderr).toMatch(/images_background\.zip.*ERR_DATA/);
    expect(code).toBe(1);
    expect(existsSync(join(root, 'never'))).toBe(false);
  });

  test('damaged and foreign checkpoints are refused and stay as they are', async () => {
    const out = folder();
    await json('train', 'sinusoid', ...quick, '--steps', '2', '--out', out);
    const path = checkpointIn(out);
    const whole = readFileSync(path);
    const { tensors, metadata } = readSafetensors(whole);
    const rewritten = (change: (file: Map<string, any>, meta: Record<string, string>) => void) => {
      const file = new Map<string, any>(tensors);
      const meta: Record<string, string> = { ...metadata };
      change(file, meta);
      return writeSafetensors(file, meta);
    };
    const w = 'params.head.basis';
    expect(tensors.has(w)).toBe(true);
    const zeros = (...shape: number[]) => ({
      shape,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    });
    for (const [bytes, text] of [
      [whole.subarray(0, whole.length - 5), /bytes of data/],
      [Buffer.from('not a checkpoint at all'), /not a valid safetensors file/],
      [rewritten(file => void file.delete(w)), /no tensor params\.head\.basis/],
      [rewritten(file => void file.set('extra', zeros(1))), /a tensor extra too many/],
      [
        rewritten(file => void file.set(w, zeros(2, 3))),
        /params\.head\.basis should be \[64,1761\], it is \[2,3\]/,
      ],
      [rewritten((_, meta) => void (meta.step = '-1')), /its metadata need step/],
      [rewritten((_, meta) => void delete meta.seed), /its metadata have seed undefined/],
    ] as const) {
      writeFileSync(path, bytes);
      const before = contents(out);
      for (const args of [
        ['train', 'sinusoid', '--resume', '--out', out],
        ['eval', '--checkpoint', path],
      ]) {
        const { code, stderr } = await weightloom(...args, ...quick);
        expect(stderr).toMatch(text);
        expect(stderr).toContain('ERR_CHECKPOINT');
        expect(code).toBe(1);
      }
      expect(contents(out)).toEqual(before);
    }
  });

  test('a loss that is not a number ends the run with the files of an earlier one as they were', async () => {
    writeFileSync(
      join(root, 'broken.mjs'),
      `export default {
        name: 'broken', kind: 'regression', inShape: [1], outSize: 1,
        draw({ support, query }, stream, split) {
          for (const { n, x, y } of [support, query])
            for (let i = 0; i < n; i++) {
              x[i] = stream.normal();
              y[i] = split === 'train' && process.env.BREAK && stream.uniform() < 1e-4 ? NaN : x[i];
            }
        },
      };`,
    );
    const out = folder();
    const args = ['train', './broken.mjs', ...quick, '--out', out];
    const { code: fine, stderr: said } = await weightloom(...args, '--steps', '5');
    expect(fine, said).toBe(0);
    const before = contents(out);
    const { code, stdout, stderr } = await begin([...args, '--steps', '5000'], { BREAK: '1' }).ended;
    expect(stderr).toMatch(/the loss of step \d+ is NaN \(ERR_NAN\)/);
    expect(code).toBe(1);
    expect(stdout).toBe('');
    expect(contents(out)).toEqual(before);
  });
});

/** Prints resident bytes after steps 400 and 2000 of eager MAML, and the live tensors of 20 and of 60 more. */
const endless = `
  import { init, memory, scope, tree, valueAndGrad, key, relu, dense, serial } from '${pathToFileURL(dist)}/index.js';
  import { drawEpisodes, maml, trainingLoss } from '${pathToFileURL(dist)}/meta/index.js';
  import { adam, applyUpdates } from '${pathToFileURL(dist)}/optim/index.js';
  import { sinusoid } from '${pathToFileURL(dist)}/data/sinusoid.js';
  const backend = await init({ backend: 'cpu' });
  const learner = maml(serial(dense(16), relu, dense(1)), [1], { steps: 2, learningRate: 0.01 });
  const differentiate = valueAndGrad(trainingLoss(learner, 1));
  const optimiser = adam(1e-3);
  let params = learner.init(key(0));
  let state = optimiser.init(params);
  const step = i => {
    const old = [params, state];
    [params, state] = scope(() => {
      const request = { split: 'train', seed: 0, first: i * 8, tasks: 8, shots: 10, queries: 10 };
      const { grads } = differentiate(params, drawEpisodes(sinusoid, request));
      const [updates, next] = optimiser.update(grads, state, params);
      return [applyUpdates(params, updates), next];
    });
    for (const t of tree.leaves(old)) t.dispose();
  };
  const rss = [];
  for (let i = 1; i <= 2000; i++) {
    step(i);
    if (i === 400 || i === 2000) {
      gc();
      rss.push(process.memoryUsage.rss());
    }
  }
  const live = [];
  scope(() => {
    for (let i = 1; i <= 60; i++) {
      step(i);
      if (i === 20 || i === 60) live.push(memory().tensors);
    }
    params = state = null;
  });
  console.log(JSON.stringify({ rss, live }));
  backend.dispose();
`;

test('2,000 steps of second-order MAML in a loop that never awaits take no more memory than 400', async () => {
  // What V8 has not collected yet and how far it let its nursery grow (to 16 MB) are kept out of the figure.
  const flags = ['--expose-gc', '--max-semi-space-size=4', '--input-type=module'];
  const child = spawn(process.execPath, [...flags, '-e', endless]);
  let printed = '';
  let complaint = '';
  child.stdout.on('data', text => (printed += text));
  child.stderr.on('data', text => (complaint += text));
  const code = await new Promise(resolve => child.on('close', resolve));
  expect(code, complaint).toBe(0);
  const { rss, live } = JSON.parse(printed);
  expect(rss[1] - rss[0]).toBeLessThanOrEqual(4 * 2 ** 20);
  expect(live[0]).toBeGreaterThan(8);
  expect(live[1]).toBe(live[0]);
});
