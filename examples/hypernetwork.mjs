/**
 * A hypernetwork in one file: ten points of a sinusoid go in, the weights of a network that continues it come out. No
 * inner gradient steps. Prints the error on unseen tasks before and after, and that of always answering 0.
 */
import * as wl from 'weightloom';
import { drawEpisodes, hypernetLearner, initialState, train, trainingLoss } from 'weightloom/meta';

await wl.init();
const target = wl.serial(wl.dense(40), wl.relu, wl.dense(40), wl.relu, wl.dense(1, { gain: 1 }));
const hyper = wl.hypernet({
  target,
  inShape: [1],
  condition: wl.setEncoder([64, 64]),
  trunk: wl.dense(64),
  head: wl.fullHead({ base: true }),
});
const draw = (split, first, tasks) =>
  drawEpisodes(wl.data.sinusoid, { split, seed: 0, first, tasks, shots: 10, queries: 20 });
const learner = hypernetLearner(hyper, () => draw('train', 0, 32).support); // typical codes set the starting scale

const steps = Number(process.argv[2] ?? 2000);
const optimiser = wl.adam(wl.cosineSchedule(2e-3, steps, { floor: 0.01 }));
const training = { loss: trainingLoss(learner, 1), optimiser, batch: step => draw('train', 32 * step, 32) };
const start = initialState(learner.init(wl.key(0)), optimiser);
const { params } = await train(training, start, { steps });

const unseen = draw('test', 0, 300);
const error = phi => trainingLoss(learner, 1)(phi, unseen).item();
const zero = await wl.mean(wl.square(unseen.query.y)).item();
console.log(JSON.stringify({ zero, before: await error(start.params), after: await error(params) }));
