/**
 * What one dispatch of a compiled step costs the CPU, without a GPU: the meta-training step E25 is replayed on Dawn's null
 * backend, which validates and records but executes nothing. Beside it the same calls, with the same pipelines and bind
 * groups, made of Dawn alone: what no library can go below. Times are the least of 200 samples of 20 steps, after the 5000
 * by which a step has settled.
 *
 *   node bench/replay.mjs [--peers DIR]
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { create } from 'webgpu';
import { createOn } from '../dist/src/backends/webgpu/backend.js';
import { node } from '../dist/src/backends/webgpu/index.js';
import { SUITES } from '../dist/src/cli/suites.js';
import { compile, use } from '../dist/src/index.js';

const root = join(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    peers: { type: 'string', default: process.env.WEIGHTLOOM_PEERS ?? join(root, '../shared/peers') },
  },
});
const STEPS = 20;
const SAMPLES = 200;

// Dawn aborts the process if this object is collected.
globalThis.dawn = create(['backend=null']);
const backend = await createOn(globalThis.dawn, {}, node);
use(backend);
const { device } = backend;

/** Microseconds of one call of `work`, the least of all samples. */
async function least(work) {
  let best = Infinity;
  for (let sample = 0; sample < SAMPLES; sample++) {
    const start = performance.now();
    for (let i = 0; i < STEPS; i++) work();
    best = Math.min(best, performance.now() - start);
    await backend.sync();
  }
  return (1e3 * best) / STEPS;
}

/** Submits the calls that `calls` makes on a pass. */
function submit(calls) {
  const encoder = device.gpu.createCommandEncoder();
  const pass = encoder.beginComputePass();
  calls(pass);
  pass.end();
  device.gpu.queue.submit([encoder.finish()]);
}

// What a run records is kept, to be recorded again without the library.
const recorded = [];
const { createCommandEncoder } = Object.getPrototypeOf(device.gpu);
let recording = false;
device.gpu.createCommandEncoder = descriptor => {
  const encoder = createCommandEncoder.call(device.gpu, descriptor);
  if (!recording) return encoder;
  const begin = encoder.beginComputePass.bind(encoder);
  encoder.beginComputePass = () => {
    const pass = begin();
    for (const name of ['setPipeline', 'setBindGroup', 'dispatchWorkgroups']) {
      const call = pass[name].bind(pass);
      pass[name] = (...args) => {
        recorded.push([name, args]);
        call(...args);
      };
    }
    return pass;
  };
  return encoder;
};

const workloads = JSON.parse(readFileSync(join(options.peers, 'workloads.json'), 'utf8'));
const { inputs, step } = SUITES.E(workloads)[0];
const compiled = compile(step, { donate: [0, 1] });
let [params, state, ...batch] = inputs();
const run = () => {
  [params, state] = compiled(params, state, ...batch);
};
for (let i = 0; i < 5000; i++) {
  run();
  if (i % 100 === 0) await backend.sync();
}
await backend.sync();
recording = true;
run();
recording = false;

const before = backend.describe().counters;
const compiledUs = await least(run);
const after = backend.describe().counters;
const steps = after.submits - before.submits;
const dispatches = (after.dispatches - before.dispatches) / steps;
const count = name => recorded.filter(([call]) => call === name).length;
const bare = await least(() =>
  submit(pass => {
    for (const [name, [first, second]] of recorded) {
      if (name === 'setPipeline') pass.setPipeline(first);
      else if (name === 'setBindGroup') pass.setBindGroup(first, second);
      else if (second === undefined) pass.dispatchWorkgroups(first);
      else pass.dispatchWorkgroups(first, second);
    }
  }),
);
const empty = await least(() => submit(() => {}));
const made = ['pipelines', 'bindGroups', 'buffers', 'bytes'].map(key => after[key] - before[key]);

const micro = us => us.toFixed(2);
console.log(`E25 on Dawn's null backend, ${dispatches} dispatches a step, ${steps} steps
made in them: ${made[0]} pipelines, ${made[1]} bind groups, ${made[2]} buffers, ${made[3]} bytes
calls a step: ${count('setPipeline')} setPipeline, ${count('setBindGroup')} setBindGroup, ${count('dispatchWorkgroups')} dispatchWorkgroups
compiled step          ${micro(compiledUs)} us, ${micro(compiledUs / dispatches)} us a dispatch
the same calls to Dawn ${micro(bare)} us, ${micro(bare / dispatches)} us a dispatch
an empty submission    ${micro(empty)} us`);
compiled.dispose();
backend.dispose();
