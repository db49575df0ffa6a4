/**
 * Shows that training holds still on WebGPU: 20,000 compiled and 5,000 eager steps of a small hypernetwork, and what the
 * device has made and the process holds in the course of them. Exits with 1 if steps make anything once warm.
 *
 *   node bench/steady.mjs [--compiled 20000] [--eager 5000]
 */
import { parseArgs } from 'node:util';
import * as wl from '../dist/src/index.js';

const { values: options } = parseArgs({
  options: {
    compiled: { type: 'string', default: '20000' },
    eager: { type: 'string', default: '5000' },
  },
});
const backend = await wl.init({ backend: 'webgpu' });
const net = wl.hypernet({
  target: wl.serial(wl.dense(8), wl.relu, wl.dense(1)),
  inShape: [1],
  condition: wl.setEncoder([8]),
  trunk: wl.dense(8),
  head: wl.fullHead(),
});
const optimizer = wl.adam(1e-3);
const loss = (phi, x, y) => wl.nn.mse(net.target.apply(net.generate(phi, net.encode(phi, { x, y })), x), y);
const update = (phi, state, x, y) => {
  const { value, grads } = wl.valueAndGrad(loss)(phi, x, y);
  const [updates, next] = optimizer.update(grads, state, phi);
  return [wl.applyUpdates(phi, updates), next, value];
};
const x = wl.tensor(
  Float32Array.from({ length: 20 }, (_, i) => Math.sin(i)),
  [2, 10, 1],
);
const y = wl.tensor(
  Float32Array.from({ length: 20 }, (_, i) => Math.cos(i)),
  [2, 10, 1],
);

const held = () => {
  const { pipelines, bindGroups, buffers, bytes } = backend.describe().counters;
  return { pipelines, bindGroups, buffers, bytes };
};
const line = (what, step, value) => {
  const megabytes = (process.memoryUsage().rss / 2 ** 20).toFixed(0);
  console.log(
    `${what} step ${step}: loss ${value.toPrecision(4)}, ${JSON.stringify(held())}, process ${megabytes} MB`,
  );
};

/** Runs `steps` steps and tells whether the last three quarters of them made nothing. */
async function steady(what, step, steps) {
  let phi = net.init(wl.key(0));
  let state = wl.scope(() => optimizer.init(phi));
  let warm;
  for (let i = 1; i <= steps; i++) {
    const old = wl.tree.leaves([phi, state]);
    const [nextPhi, nextState, value] = wl.scope(() => step(phi, state, x, y));
    [phi, state] = [nextPhi, nextState];
    // A compiled step took them over.
    if (step === update) for (const leaf of old) leaf.dispose();
    // Eager commands wait for each other until something is read; so do the buffers they use.
    if (i % 10 === 0) await value.item();
    if (i === steps / 4) warm = JSON.stringify(held());
    if (i % (steps / 4) === 0) line(what, i, await value.item());
    if (step === update) value.dispose();
  }
  const still = JSON.stringify(held()) === warm;
  for (const leaf of wl.tree.leaves([phi, state])) leaf.dispose();
  return still;
}

const compiled = wl.compile(update, { donate: [0, 1] });
const still = [
  await steady('compiled', compiled, Number(options.compiled)),
  await steady('eager', update, Number(options.eager)),
];
console.log(still.every(Boolean) ? 'memory is flat' : 'steps went on making things');
compiled.dispose();
backend.dispose();
process.exitCode = still.every(Boolean) ? 0 : 1;
