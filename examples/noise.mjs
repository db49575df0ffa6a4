/**
 * A distribution of networks from noise: tasks are y = x or y = -x and nothing says which. A generator that reads noise
 * alone ends in one network for all noise, unless a term keeps its draws apart; then its draws cover both answers. Prints
 * the variance of a weight over draws, and the error where a task weighs 64 draws by ten rows of its own.
 */
import * as wl from 'weightloom';
import { drawEpisodes, initialState, noiseLearner, train, trainingLoss } from 'weightloom/meta';

await wl.init();
const hyper = wl.hypernet({
  target: wl.dense(1, { bias: false, gain: 1 }),
  inShape: [1],
  condition: wl.noise(4),
  trunk: wl.serial(wl.dense(16), wl.relu, wl.dense(16)),
  head: wl.fullHead(),
});
const draw = (split, first, tasks) => {
  const sizes = { split, seed: 0, first, tasks, shots: 10, queries: 20 };
  return drawEpisodes(wl.data.twoModes, sizes, { key: true });
};

const steps = Number(process.argv[2] ?? 2500);
async function trained(spread) {
  const learner = noiseLearner(hyper, { spread });
  const optimiser = wl.adam(wl.cosineSchedule(1e-2, steps, { floor: 0.01 }));
  const training = { loss: trainingLoss(learner, 1), optimiser, batch: step => draw('train', 64 * step, 64) };
  const { params } = await train(training, initialState(learner.init(wl.key(0)), optimiser), { steps });
  const { variance } = await wl.weightStatistics(learner.draw(params, 64, wl.key(1)));
  const { support, query } = draw('test', 0, 300);
  const error = wl.mean(wl.square(wl.sub(learner.predict(params, support, query.x, 1), query.y)));
  return { variance, error: await error.item() };
}
console.log(JSON.stringify({ plain: await trained(0), spread: await trained(1) }));
