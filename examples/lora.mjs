/**
 * One frozen layer, a batch whose rows all use different adapters: a hypernetwork reads what a row's task is and generates a
 * LoRA adapter W + a · b of rank 2 for it. Rows are applied by their own adapters in one call, no adapted W is ever made,
 * and gradients reach the generator through the adapters. Prints the error without, before and after training them.
 */
import * as wl from 'weightloom';

await wl.init();
const [BATCH, WIDTH, RANK, TASKS] = [256, 32, 2, 64];
const frozen = wl.mul(wl.normal(wl.key(1), [WIDTH, WIDTH]), WIDTH ** -0.5);
const target = wl.dense(WIDTH, { bias: false });
const hyper = wl.hypernet({
  target,
  inShape: [WIDTH],
  condition: wl.taskId(TASKS, 16),
  trunk: wl.dense(64),
  head: wl.lowRankHead({ rank: RANK, base: false }),
});
const optimizer = wl.adam(3e-3);

/** What the tasks want of the frozen layer: a rotation of their own, of rank 2. */
const [keyA, keyB] = wl.split(wl.key(2));
const wantedA = wl.mul(wl.normal(keyA, [TASKS, WIDTH, RANK]), WIDTH ** -0.5);
const wantedB = wl.mul(wl.normal(keyB, [TASKS, RANK, WIDTH]), RANK ** -0.5);
function rows(seed) {
  const [forIds, forX] = wl.split(wl.key(seed));
  const ids = wl.cast(wl.uniform(forIds, [BATCH], 0, TASKS), 'i32');
  const x = wl.normal(forX, [BATCH, 1, WIDTH]);
  const own = wl.matmul(wl.matmul(x, wl.take(wantedA, ids)), wl.take(wantedB, ids));
  return { ids, x, y: wl.add(wl.matmul(x, frozen), own) };
}
const loss = (phi, { ids, x, y }) => {
  const adapters = hyper.generate(phi, hyper.encode(phi, ids));
  return wl.nn.mse(wl.add(wl.matmul(x, frozen), target.apply(adapters, x)), y);
};
const step = wl.compile(
  (phi, state, batch) => {
    const { value, grads } = wl.valueAndGrad(loss)(phi, batch);
    const [updates, next] = optimizer.update(grads, state, phi);
    return [wl.applyUpdates(phi, updates), next, value];
  },
  { donate: [0, 1] },
);

const unseen = rows(3);
const without = await wl.nn.mse(wl.matmul(unseen.x, frozen), unseen.y).item();
let phi = hyper.init(wl.key(0));
const before = await loss(phi, unseen).item();
let state = optimizer.init(phi);
for (let i = 0; i < Number(process.argv[2] ?? 1500); i++) [phi, state] = step(phi, state, rows(4 + i));
const after = await loss(phi, unseen).item();
console.log(
  JSON.stringify({ rows: BATCH, adapters: new Set(await unseen.ids.data()).size, without, before, after }),
);
