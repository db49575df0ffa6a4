/**
 * 10,000 users, one new row each: every user's own network of 4,417 weights is generated from their history, applied and
 * dropped again, in one compiled step that promises 80 MB. As tensors the weights alone would be 177 MB, and as much again
 * for their gradients. Prints the error on users' next rows before and after, and what the step took.
 */
import * as wl from 'weightloom';

await wl.init();
const [USERS, HISTORY, FEATURES] = [10_000, 8, 2];
const target = wl.serial(wl.dense(64), wl.relu, wl.dense(64), wl.relu, wl.dense(1));
const hyper = wl.hypernet({
  target,
  inShape: [FEATURES],
  condition: wl.setEncoder([32, 32]),
  trunk: wl.dense(8),
  head: wl.fullHead({ base: true, share: 0.1 }),
});
const optimizer = wl.adam(3e-3);

/** Each user has a hidden taste: y = tanh(x · taste), for HISTORY rows that are known and one that is to be told. */
function users(seed) {
  const [tastes, rows] = wl.split(wl.key(seed));
  const taste = wl.normal(tastes, [USERS, FEATURES, 1]);
  const x = wl.normal(rows, [USERS, HISTORY + 1, FEATURES]);
  const y = wl.tanh(wl.matmul(x, taste));
  const cut = z => wl.unpack(z, [HISTORY, 1], 1);
  const [[known, next], [told, wanted]] = [cut(x), cut(y)];
  return { support: { x: known, y: told }, query: { x: next, y: wanted } };
}
const loss = (phi, { support, query }) => {
  const theta = hyper.generate(phi, hyper.encode(phi, support));
  return wl.nn.mse(target.apply(theta, query.x), query.y);
};
const step = wl.compile(
  (phi, state, batch) => {
    const { value, grads } = wl.valueAndGrad(loss)(phi, batch);
    const [updates, next] = optimizer.update(grads, state, phi);
    return [wl.applyUpdates(phi, updates), next, value];
  },
  { donate: [0, 1], maxBytes: 80e6 },
);
const test = wl.compile(loss, { maxBytes: 80e6 });

const unseen = users(1);
let phi = hyper.init(wl.key(0));
const mute = await wl.mean(wl.square(unseen.query.y)).item(); // what saying 0 costs
const before = await test(phi, unseen).item();
let state = optimizer.init(phi);
for (let i = 0; i < Number(process.argv[2] ?? 80); i++) [phi, state] = step(phi, state, users(2 + i));
const after = await test(phi, unseen).item();
const [{ peakBytes }] = step.stats();
const weights = 4 * USERS * hyper.weightCount;
console.log(JSON.stringify({ users: USERS, mute, before, after, peakBytes, weightBytes: weights }));
