/**
 * A network of its own for each of many users, with one row each: forward and backward of T generated networks that are
 * never stored. Prints the seconds of a step (the least of a few), its share of the peak of multiply-adds measured here,
 * and the most memory it took beside what it must hold: inputs, parameters and gradients.
 *
 *   node bench/users.mjs [--users 10000] [--code 64] [--widths 700,128,64,32,5] [--threads 1] [--samples 3]
 *                        [--strategy fused] [--backend cpu]
 *
 * The widths are those of the target, 100,000 weights in four layers unless given. Operations counted are those of the
 * algebra, 2 T E P forward and twice that backward.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { measureFlops } from '../dist/src/cli/machine.js';
import * as wl from '../dist/src/index.js';

const { values: options } = parseArgs({
  options: {
    users: { type: 'string', default: '10000' },
    code: { type: 'string', default: '64' },
    widths: { type: 'string', default: '700,128,64,32,5' },
    threads: { type: 'string', default: '1' },
    samples: { type: 'string', default: '3' },
    strategy: { type: 'string', default: 'fused' },
    backend: { type: 'string', default: 'cpu' },
  },
});
const [T, E] = [Number(options.users), Number(options.code)];
const widths = options.widths.split(',').map(Number);
const { strategy } = options;
const shapes = widths.slice(1).map((out, l) => [widths[l], out]);
const weights = shapes.reduce((sum, [i, o]) => sum + i * o, 0);

/** A figure of this process's memory, in bytes: VmRSS what it has in RAM, VmHWM the most it has had. */
const memory = name =>
  1024 * Number(new RegExp(`${name}:\\s*(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))[1]);

const backend = await wl.init({ backend: options.backend, threads: Number(options.threads) });
const { perSecond: peak } = await measureFlops(backend);
globalThis.gc?.();
const before = memory('VmRSS');

const keys = wl.split(wl.key(0), 3);
// Compiled, so that a draw takes no memory beside its result and temporaries, which the steps after it use again; the
// largest first, so that these need not grow.
const draw = (key, shape, width) => wl.compile(key => wl.uniform(key, shape, -width, width))(key);
const x = draw(keys[2], [T, widths[0]], 1);
const params = {
  code: draw(keys[0], [T, E], 1),
  basis: draw(keys[1], [E, weights], 3 / Math.sqrt(E * widths[0])),
};
await wl.sync();

const loss = ({ code, basis }, rows) => {
  const pieces = wl.projectFull(code, basis, null, shapes);
  const y = pieces.reduce(
    (h, w, l) => wl.linear(l > 0 ? wl.relu(h) : h, w, null, { strategy }),
    wl.reshape(rows, [T, 1, widths[0]]),
  );
  return wl.mean(wl.square(y));
};
const step = wl.compile((params, rows) => wl.valueAndGrad(loss)(params, rows));

let seconds = Infinity;
let value;
for (let k = 0; k < Number(options.samples); k++) {
  const start = performance.now();
  const result = step(params, x);
  await wl.sync();
  seconds = Math.min(seconds, (performance.now() - start) / 1000);
  value = await result.value.item();
  for (const gradient of Object.values(result.grads)) gradient.dispose();
}
const used = memory('VmHWM') - before;
const must = 4 * (2 * (T * E + E * weights) + T * widths[0]);
const flops = 6 * T * E * weights;
console.log(
  JSON.stringify({
    ...{ users: T, code: E, widths, weights, strategy, threads: Number(options.threads) },
    seconds: Number(seconds.toFixed(3)),
    gflops: Number((flops / seconds / 1e9).toFixed(1)),
    peakGflops: Number((peak / 1e9).toFixed(1)),
    percentOfPeak: Number(((100 * flops) / seconds / peak).toFixed(1)),
    mustHoldMB: Number((must / 1e6).toFixed(1)),
    memoryMB: Number((used / 1e6).toFixed(1)),
    times: Number((used / must).toFixed(2)),
    weightsStoredGB: Number(((4 * T * weights) / 1e9).toFixed(2)),
    loss: value,
  }),
);
