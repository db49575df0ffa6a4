/**
 * MAML in one file: a start from which one gradient step on ten points fits a sinusoid, found by the gradient through that
 * step (second order). Prints the error on unseen tasks after 0, 1 and 5 steps, and after 1 step from a random start.
 */
import * as wl from 'weightloom';
import { adapt, drawEpisodes, initialState, perTask, taskLosses, train } from 'weightloom/meta';

await wl.init();
const net = wl.serial(wl.dense(40), wl.relu, wl.dense(40), wl.relu, wl.dense(1, { gain: 1 }));
const draw = (split, first, tasks) =>
  drawEpisodes(wl.data.sinusoid, { split, seed: 0, first, tasks, shots: 10, queries: 10 });

/** The error of every task on its query rows after so many steps on its support rows, all tasks in one call. */
const errors = (params, { support, query }, steps) => {
  const loss = theta => wl.sum(taskLosses(net.apply(theta, support.x), support.y));
  const own = perTask(params, support.x.shape[0]);
  return taskLosses(net.apply(adapt(loss, own, { steps, learningRate: 0.01 }), query.x), query.y);
};

const optimiser = wl.adam(1e-3);
const training = {
  loss: (params, episodes) => wl.mean(errors(params, episodes, 1)),
  optimiser,
  batch: step => draw('train', 25 * step, 25),
};
const start = initialState(net.init(wl.key(0), [1]), optimiser);
const { params } = await train(training, start, { steps: Number(process.argv[2] ?? 3000) });

const unseen = draw('test', 0, 300);
const after = (from, steps) => wl.mean(errors(from, unseen, steps)).item();
const [zero, one, five] = [await after(params, 0), await after(params, 1), await after(params, 5)];
console.log(JSON.stringify({ zero, one, five, random: await after(start.params, 1) }));
