/** Learning tasks one after the other: what is kept, what is lost, and that a run can be cut anywhere. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { trainSequence } from '../src/cli/continual.js';
import { main } from '../src/cli/main.js';
import { grad } from '../src/core/grad.js';
import * as tree from '../src/core/tree.js';
import { Stream } from '../src/data/stream.js';
import { chunkedHead, hypernet, taskId } from '../src/hyper/index.js';
import { dense, init, key, materialise, mul, relu, serial, type Tensor, tensor } from '../src/index.js';
import {
  type ContinualState,
  type ContinualTask,
  type ContinualTraining,
  continualHypernet,
  initialContinualState,
  separateNetworks,
  trainContinual,
} from '../src/meta/index.js';
import { adam } from '../src/optim/index.js';

/** Pictures of 2 x 2 pixels, whose label is whether the pixel of the task's number is lit. */
const task = (pixel: number): ContinualTask => {
  const pictures = (count: number, word: number) => {
    const stream = new Stream(pixel, word);
    const images = Uint8Array.from({ length: 4 * count }, () => 255 * stream.below(2));
    const labels = Int32Array.from({ length: count }, (_, i) => (images[4 * i + pixel] > 0 ? 1 : 0));
    return { count, height: 2, width: 2, images, labels };
  };
  return { train: pictures(60, 0), test: pictures(40, 1) };
};
const tasks = [task(0), task(1), task(2)];
const target = serial(dense(8), relu, dense(2, { gain: 1 }));
const hyper = hypernet({
  target,
  inShape: [4],
  condition: taskId(3, 6),
  trunk: serial(dense(12), relu, dense(12)),
  head: chunkedHead({ chunk: 16, slot: 6 }),
});
const training = (more: Partial<ContinualTraining<any>> = {}): ContinualTraining<any> => ({
  tasks,
  learner: continualHypernet(hyper),
  optimiser: adam(5e-3),
  stepsPerTask: 120,
  batch: 20,
  keep: 1,
  seed: 0,
  ...more,
});
const start = (run: ContinualTraining<any>) => initialContinualState(run, run.learner.init(key(1)));
const numbers = (x: unknown) => tree.leaves<Tensor>(x).flatMap(leaf => [...leaf.dataSync()]);

describe('a sequence of small tasks', () => {
  beforeEach(() => init({ backend: 'cpu', threads: 1 }));

  test("the drift is the squared distance of an old task's weights, and pulls only where they differ", () => {
    const learner = continualHypernet(hyper);
    const before = learner.init(key(1));
    const old = tensor(Int32Array.of(1));
    const moved = tree.map((p: Tensor) => mul(p, 1.1), before);
    const weights = (p: any) => numbers(materialise(hyper.generate(p, hyper.encode(p, old))));
    const then = weights(before);
    const expected = weights(moved).reduce((sum, w, i) => sum + (w - then[i]) ** 2, 0);
    expect(expected).toBeGreaterThan(0.01);
    const drift = (p: any) => learner.drift!(p, before, old);
    expect(Math.abs(numbers(drift(moved))[0] / expected - 1)).toBeLessThan(1e-4);
    expect(numbers(drift(before))).toEqual([0]);
    expect(numbers(grad(drift)(before)).every(g => g === 0)).toBe(true);
    // A task that is not old has a code of its own, which the drift leaves alone.
    const { table } = grad(drift)(moved).condition;
    expect([...table.dataSync()].map(g => g !== 0)).toEqual(
      Array.from({ length: 18 }, (_, i) => i >= 6 && i < 12),
    );
  });

  test('networks of their own are not touched by later tasks', async () => {
    const run = training({ learner: separateNetworks(target, [4], 3) });
    const seen: number[] = [];
    const end = await trainContinual(run, start(run), { onTask: (_, score) => seen.push(score) });
    expect(seen.length).toBe(3);
    expect(seen.every(score => score > 0.9)).toBe(true);
    expectClose(numbers(end.learned), seen);
    const first = (state: ContinualState<any>) => numbers(state.params).filter((_, i) => i < 32);
    const stop = new AbortController();
    const middle = await trainContinual(run, start(run), { signal: stop.signal, onTask: () => stop.abort() });
    expect(middle.step).toBe(120);
    expect(first(end)).toEqual(first(middle));
  });

  test('what is kept is remembered better', async () => {
    const final = async (keep: number) => {
      const run = training({ keep });
      const end = await trainContinual(run, start(run), {});
      const drift = numbers(run.learner.drift!(end.params, end.before, tensor(Int32Array.of(0))))[0];
      return drift;
    };
    expect(await final(1)).toBeLessThan(0.2 * (await final(0)));
  });

  test('a run cut in the middle of a task goes on to the same bits', async () => {
    const run = training();
    const whole = await trainContinual(run, start(run), {});
    const stop = new AbortController();
    const cut = await trainContinual(run, start(run), {
      signal: stop.signal,
      onLosses: (first, losses) => {
        if (first + losses.length >= 150) stop.abort();
      },
    });
    expect(cut.step).toBeGreaterThanOrEqual(150);
    expect(cut.step).toBeLessThan(240);
    const resumed = await trainContinual(run, cut, {});
    expect(numbers(resumed.params)).toEqual(numbers(whole.params));
    expect(numbers(resumed.learned)).toEqual(numbers(whole.learned));
  });
});

function expectClose(actual: readonly number[], expected: readonly number[]) {
  expect(actual.length).toBe(expected.length);
  expected.forEach((x, i) => {
    expect(Math.abs(actual[i] - x)).toBeLessThan(1e-6);
  });
}

describe('split MNIST on the command line', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'weightloom-continual-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const quick = { backend: 'cpu', threads: 1, steps: 1500, resume: false } as const;

  test('the hypernetwork learns every task and forgets less than without keeping', {
    timeout: 120_000,
  }, async () => {
    const { signal } = new AbortController();
    const by = (method: string) =>
      trainSequence('split-mnist', { ...quick, method, out: join(folder, method) }, signal);
    const [kept, lost] = [await by('hypernet'), await by('finetune')];
    expect(kept.weights.learned).toBeLessThan(kept.weights.target);
    expect(kept.learned.mean).toBeGreaterThan(0.9);
    expect(kept.learned.mean - kept.after.mean).toBeLessThan(0.5 * (lost.learned.mean - lost.after.mean));
    expect(readFileSync(kept.checkpoint).length).toBeGreaterThan(4 * kept.weights.learned);
  });

  test.each([
    [['train', 'split-mnist', '--steps', '7'], /--steps is 7; expected a multiple of the 5 tasks/],
    [['train', 'split-mnist', '--method', 'maml'], /expected one of hypernet, finetune, separate/],
  ])('%s is refused', async (args, message) => {
    const errors: string[] = [];
    const spy = (text: string) => void errors.push(text);
    expect(await withErrors(spy, () => main(args))).toBe(2);
    expect(errors.join('\n')).toMatch(message);
  });
});

async function withErrors<R>(sink: (text: string) => void, f: () => Promise<R>): Promise<R> {
  const { error } = console;
  console.error = sink;
  try {
    return await f();
  } finally {
    console.error = error;
  }
}
