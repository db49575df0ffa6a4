/**
 * What to ask when a hypernetwork does not learn: where is its graph cut, which order of derivative was built, which
 * parameters get no gradient, and does it use its input. Answers for one that is right, for one whose weights were
 * copied out of the graph, as in many a tutorial, and for one whose encoder is dead.
 */
import * as wl from 'weightloom';
import * as meta from 'weightloom/meta';

await wl.init();
const target = wl.serial(wl.dense(16), wl.relu, wl.dense(1));
const condition = wl.setEncoder([32, 32]);
const hyper = wl.hypernet({ target, inShape: [1], condition, head: wl.fullHead({ base: true }) });
const sizes = { split: 'train', seed: 0, tasks: 32, shots: 10, queries: 10 };
const draw = step => meta.drawEpisodes(wl.data.sinusoid, { ...sizes, first: 32 * step });
const { support, query } = draw(0);
const phi = hyper.init(wl.key(0));
const weights = params => hyper.generate(params, hyper.encode(params, support));
const error = theta => wl.nn.mse(target.apply(theta, query.x), query.y);

const whole = wl.trace(params => error(weights(params)), phi);
const copied = wl.trace(params => error(wl.stopGradient(wl.materialise(weights(params)))), phi);
const twice = meta.maml(target, [1], { steps: 1, learningRate: 0.01 });
const orders = wl.trace(params => meta.trainingLoss(twice, 1)(params, draw(0)), target.init(wl.key(1), [1]));

const learner = meta.hypernetLearner(hyper);
const optimiser = wl.adam(2e-3);
async function trained(start, steps, onZeroGradients) {
  const training = { loss: meta.trainingLoss(learner, 1), optimiser, batch: draw };
  const { params } = await meta.train(training, meta.initialState(start, optimiser), {
    steps,
    onZeroGradients,
  });
  return params;
}
const shut = { ...phi, condition: wl.tree.map(p => wl.mul(p, 0), phi.condition) };
let dead = [];
await trained(shut, 64, (_, paths) => {
  dead = paths;
});
const after = await trained(phi, 500);
const { effectiveRank } = await wl.weightStatistics(weights(after));
console.log(
  JSON.stringify({
    whole: whole.map(({ cut }) => cut),
    copied: copied.map(({ cut }) => cut),
    orders: orders.map(({ order }) => order),
    dead,
    effectiveRank,
    use: await meta.supportUse(learner, after, draw(1000), 1),
  }),
);
