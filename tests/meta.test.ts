import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sinusoid } from '../src/data/sinusoid.js';
import {
  add,
  grad,
  init,
  key,
  matmul,
  mean,
  memory,
  mul,
  normal,
  split,
  sqrt,
  square,
  stopGradient,
  sub,
  sum,
  type Tensor,
  tanh,
  tensor,
  tree,
  valueAndGrad,
} from '../src/index.js';
import { readSafetensors, writeSafetensors } from '../src/io/index.js';
import {
  adapt,
  drawEpisodes,
  type Episodes,
  evaluate,
  initialState,
  packState,
  perTask,
  summarise,
  type TrainingState,
  taskLosses,
  taskScores,
  train,
  unpackParams,
} from '../src/meta/index.js';
import { adam } from '../src/optim/index.js';

/** Lets finalizers of earlier tests run, so that they do not count in this one. */
async function settle() {
  for (let i = 0; i < 3; i++) {
    gc!();
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

type Net = { w: Tensor; b: Tensor }[];
const values = (t: Tensor) => [...t.dataSync()];
const flat = (of: unknown) => tree.leaves<Tensor>(of).flatMap(values);

/** A 1-5-1 tanh network; leaves `[in, out]`, or `[T, in, out]` for x `[T, n, in]`. */
function network(seed: number): Net {
  const [a, b, c, d] = split(key(seed), 4);
  return [
    { w: normal(a, [1, 5]), b: mul(normal(b, [1, 5]), 0.3) },
    { w: normal(c, [5, 1]), b: mul(normal(d, [1, 1]), 0.3) },
  ];
}
const predict = ([first, second]: Net, x: Tensor): Tensor =>
  add(matmul(tanh(add(matmul(x, first.w), first.b)), second.w), second.b);

const episodes = (tasks: number, first = 0): Episodes =>
  drawEpisodes(sinusoid, { split: 'train', seed: 3, first, tasks, shots: 4, queries: 6 });

/** The outer MAML loss of all tasks in one call. */
const outer = (steps: number, learningRate: number, firstOrder: boolean) => (params: Net, data: Episodes) => {
  const tasks = data.support.x.shape[0];
  const inner = (p: Net) => sum(taskLosses(predict(p, data.support.x), data.support.y));
  const adapted = adapt(inner, perTask(params, tasks), { steps, learningRate, firstOrder });
  return mean(taskLosses(predict(adapted, data.query.x), data.query.y));
};

describe('the inner loop, in float64', () => {
  beforeAll(() => init({ backend: 'ref', float: 64 }).then(() => {}));

  test('no steps: the parameters themselves', () => {
    const params = network(1);
    expect(adapt(() => tensor(1), params, { steps: 0, learningRate: 1 })).toBe(params);
    expect(() => adapt(() => tensor(1), params, { steps: 1.5, learningRate: 1 })).toThrow(/>= 0, got 1.5/);
  });

  test('one step is plain gradient descent', () => {
    const params = { w: tensor([3, -2]) };
    const adapted = adapt(({ w }) => sum(square(w)), params, { steps: 2, learningRate: 0.25 });
    expect(values(adapted.w)).toEqual([0.75, -0.5]);
  });

  test('rates may be a tree like the parameters', () => {
    const params = { a: tensor([3]), b: tensor([3]) };
    const rates = { a: tensor(0.5), b: 0.25 };
    const adapted = adap2(params, rates);
    expect([...values(adapted.a), ...values(adapted.b)]).toEqual([0, 1.5]);
  });

  test('a part may adapt alone; the rest still gets its gradient', () => {
    const data = episodes(3);
    const steps = { steps: 2, learningRate: 0.05 };
    const headOnly = ([body, head]: Net) => {
      const heads = perTask(head, 3);
      const inner = (h: Net[number]) => sum(taskLosses(predict([body, h], data.support.x), data.support.y));
      return mean(taskLosses(predict([body, adapt(inner, heads, steps)], data.query.x), data.query.y));
    };
    const params = network(2);
    const exact = grad(headOnly)(params);
    const h = 1e-5;
    const moved = (by: number) =>
      headOnly([{ ...params[0], w: add(params[0].w, by) }, params[1]]).dataSync()[0];
    const slope = (moved(h) - moved(-h)) / (2 * h);
    expect(values(sum(exact[0].w))[0]).toBeCloseTo(slope, 6);
    expect(Math.abs(slope)).toBeGreaterThan(1e-3);
    const all = valueAndGrad(outer(2, 0.05, false))(params, data);
    expect(headOnly(params).dataSync()[0]).not.toBeCloseTo(values(all.value)[0], 6);
  });

  test('the second-order gradient equals finite differences', () => {
    const params = network(2);
    const data = episodes(3);
    const loss = outer(2, 0.05, false);
    const exact = flat(grad(loss)(params, data));
    const h = 1e-5;
    const start = flat(params);
    const at = (moved: number[]) => {
      let next = 0;
      const point = tree.map((t: Tensor) => {
        const part = moved.slice(next, (next += t.size));
        return tensor(part, t.shape);
      }, params) as Net;
      return loss(point, data).dataSync()[0];
    };
    const size = Math.hypot(...exact);
    start.forEach((x, i) => {
      const difference = (at(start.with(i, x + h)) - at(start.with(i, x - h))) / (2 * h);
      expect(Math.abs(difference - exact[i]) / size, `parameter ${i}`).toBeLessThan(1e-6);
    });
  });

  test('the first-order gradient is another one: that of the query loss at the adapted parameters', () => {
    const params = network(2);
    const data = episodes(3);
    const second = flat(grad(outer(2, 0.05, false))(params, data));
    const first = flat(grad(outer(2, 0.05, true))(params, data));
    const inner = (p: Net) => sum(taskLosses(predict(p, data.support.x), data.support.y));
    const adapted = stopGradient(adapt(inner, perTask(params, 3), { steps: 2, learningRate: 0.05 }));
    const direct = grad((p: Net) => mean(taskLosses(predict(p, data.query.x), data.query.y)))(adapted);
    const summed = flat(tree.map((g: Tensor) => sum(g, 0), direct));
    const size = Math.hypot(...first);
    first.forEach((g, i) => {
      expect(Math.abs(g - summed[i]) / size).toBeLessThan(1e-12);
    });
    const apart = Math.hypot(...first.map((g, i) => g - second[i])) / size;
    expect(apart).toBeGreaterThan(0.05);
  });

  test('all tasks in one call equal one call per task', () => {
    const params = network(4);
    const loss = valueAndGrad(outer(3, 0.05, false));
    const together = loss(params, episodes(5));
    const apart = Array.from({ length: 5 }, (_, t) => loss(params, episodes(1, t)));
    const average = (of: number[][]) => of[0].map((_, i) => of.reduce((s, row) => s + row[i], 0) / of.length);
    const close = (a: number[], b: number[]) => {
      a.forEach((x, i) => {
        expect(Math.abs(x - b[i])).toBeLessThan(1e-12 * Math.max(1, Math.abs(x)));
      });
    };
    close(values(together.value), average(apart.map(one => values(one.value))));
    close(flat(together.grads), average(apart.map(one => flat(one.grads))));
  });
});

function adap2(params: { a: Tensor; b: Tensor }, learningRate: object) {
  return adapt(({ a, b }) => add(sum(square(a)), sum(square(b))), params, { steps: 1, learningRate });
}

describe('scores and intervals', () => {
  beforeAll(() => init({ backend: 'ref' }).then(() => {}));

  test('squared error and accuracy per task', () => {
    const y = tensor([1, 2, 3, 4], [2, 2, 1]);
    const predicted = tensor([1, 4, 3, 5], [2, 2, 1]);
    expect(values(taskScores(predicted, y))).toEqual([2, 0.5]);
    expect(() => taskLosses(tensor([1, 2, 3, 4], [2, 2]), y)).toThrow(
      /prediction \[2,2\] and target \[2,2,1\]/,
    );
    const logits = tensor([5, 1, 0, 2, 1, 3, 9, 0], [2, 2, 2]);
    const labels = tensor(Int32Array.of(0, 1, 0, 0), [2, 2]);
    expect(values(taskScores(logits, labels))).toEqual([1, 0.5]);
    const [first] = values(taskLosses(logits, labels));
    expect(first).toBeCloseTo((Math.log(1 + Math.exp(-4)) + Math.log(1 + Math.exp(-2))) / 2, 6);
  });

  test('the interval is 1.96 standard errors, the deviation over n - 1', () => {
    expect(summarise([1, 2, 3, 4])).toEqual({
      mean: 2.5,
      ci95: expect.closeTo((1.96 * Math.sqrt(5 / 3)) / 2, 12),
      tasks: 4,
    });
    expect(() => summarise([1])).toThrow(/at least 2 tasks, got 1/);
  });

  test('evaluation scores every task once, whatever the batch size', async () => {
    const params = network(5);
    const score = (p: Net, { query }: Episodes) => taskScores(predict(p, query.x), query.y);
    const draw = (first: number, tasks: number) => episodes(tasks, first);
    await settle();
    const before = memory().tensors;
    const [seven, three] = [
      await evaluate(score, params, draw, { tasks: 10, batchTasks: 7 }),
      await evaluate(score, params, draw, { tasks: 10, batchTasks: 3 }),
    ];
    expect(memory().tensors).toBe(before);
    expect(seven).toEqual(three);
    const direct = values(score(params, episodes(10)));
    expect([...seven]).toEqual(direct);
  });
});

describe('the trainer', () => {
  beforeEach(() => init({ backend: 'ref' }).then(() => {}));

  const truth = [2, -1, 0.5];
  /** Noiseless rows of one fixed linear function; a pure function of the step. */
  const batch = (step: number) => {
    const x = normal(key(step), [8, 3]);
    return { x, y: matmul(x, tensor(truth, [3, 1])) };
  };
  type Batch = ReturnType<typeof batch>;
  const loss = ({ w }: { w: Tensor }, { x, y }: Batch) => mean(square(sub(matmul(x, w), y)));
  /** The root of the loss: its slope at 0 is infinite, times 0. */
  const steep = (params: { w: Tensor }, data: Batch) => sqrt(loss(params, data));
  const training = { loss, optimiser: adam(0.05), batch };
  const start = () => initialState({ w: tensor([0, 0, 0], [3, 1]) }, training.optimiser);

  test('finds the function, and reports every loss once', async () => {
    const losses: number[] = [];
    const from = start();
    const end = await train(training, from, {
      steps: 600,
      onLosses: (first, more) => {
        expect(first).toBe(losses.length);
        losses.push(...more);
      },
    });
    expect(values(end.params.w)).toEqual(truth.map(x => expect.closeTo(x, 3)));
    expect(end.step).toBe(600);
    expect(losses.length).toBe(600);
    expect(losses[0]).toBe(loss(from.params, batch(0)).dataSync()[0]);
    expect(losses[599]).toBeLessThan(1e-6);
    expect(values(from.params.w)).toEqual([0, 0, 0]);
  });

  test('a run cut anywhere and resumed ends in the same bits', async () => {
    const whole = await train(training, start(), { steps: 100 });
    for (const cut of [1, 37, 99, 100]) {
      const half = await train(training, start(), { steps: cut });
      const resumed = await train(training, half, { steps: 100 });
      expect(flat({ p: resumed.params, o: resumed.optimiser })).toEqual(
        flat({ p: whole.params, o: whole.optimiser }),
      );
    }
  });

  test('checkpoints every so many steps, in time, and at the end', async () => {
    const at: number[] = [];
    const onCheckpoint = async (state: TrainingState<unknown>) => void at.push(state.step);
    await train(training, start(), { steps: 25, checkpointSteps: 10, onCheckpoint });
    expect(at).toEqual([10, 20, 25]);
    at.length = 0;
    await train(training, start(), { steps: 5, checkpointSeconds: 0, onCheckpoint });
    expect(at[0]).toBe(1);
    expect(at.at(-1)).toBe(5);
  });

  test('an aborted run keeps what it has done', async () => {
    const controller = new AbortController();
    const at: number[] = [];
    const end = await train(training, start(), {
      steps: 1e6,
      signal: controller.signal,
      onLosses: (first, { length }) => {
        if (first + length >= 30) controller.abort();
      },
      onCheckpoint: async state => void at.push(state.step),
    });
    expect(end.step).toBeGreaterThanOrEqual(30);
    expect(end.step).toBeLessThan(100);
    expect(at).toEqual([end.step]);
    const straight = await train(training, start(), { steps: end.step });
    expect(flat(end.params)).toEqual(flat(straight.params));
  });

  test.each([
    ['loss', /the loss of step 41 is NaN/, loss, Number.NaN],
    ['gradient', /a gradient is not finite in one of the steps 41 .. /, steep, 0],
  ])(
    'a %s that is not finite is an error that names the step, and no checkpoint follows',
    async (_, text, of, y) => {
      const saved: { step: number; w: number[] }[] = [];
      const broken = {
        loss: of,
        optimiser: adam(0.05),
        batch: (step: number) => {
          const data = batch(step);
          return step === 40 ? { x: mul(data.x, y), y: mul(data.y, y) } : data;
        },
      };
      const run = train(broken, start(), {
        steps: 100,
        checkpointSteps: 10,
        onCheckpoint: async ({ step, params }) => void saved.push({ step, w: values(params.w) }),
      });
      await expect(run).rejects.toMatchObject({ code: 'ERR_NAN', message: expect.stringMatching(text) });
      expect(saved.map(s => s.step)).toEqual([10, 20, 30, 40]);
      expect(saved.at(-1)!.w.every(Number.isFinite)).toBe(true);
    },
  );

  test('leaves no tensors to scopes or devices but the state it returns', async () => {
    await settle();
    const from = start();
    const before = memory().tensors;
    await train(training, from, { steps: 70 });
    expect(memory().tensors).toBe(before);
  });
});

test('the parameters of a checkpoint are had without its optimiser', async () => {
  const params = { w: tensor([1, 2]), b: tensor([3]) };
  const state = initialState(params, adam(0.1));
  const packed = await packState(state, {});
  const file = readSafetensors(writeSafetensors(packed.tensors, packed.metadata));
  expect(file.tensors.size).toBeGreaterThan(2);
  const like = { w: tensor([0, 0]), b: tensor([0]) };
  expect(flat(unpackParams(like, file, 'it'))).toEqual(flat(params));
  const refusal = (other: unknown) => expect(() => unpackParams(other, file, 'it'));
  refusal({ w: like.w }).toThrow(/^it: it has a tensor params\.b too many$/);
  refusal({ ...like, c: like.b }).toThrow(/^it: it has no tensor params\.c \[1\]$/);
  refusal({ ...like, w: like.b }).toThrow(/^it: params\.w should be \[1\], it is \[2\]$/);
});
