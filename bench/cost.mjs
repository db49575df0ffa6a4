/**
 * What a layer of generated weights costs, forward, with its gradients, and with gradients of gradients: operations, bytes
 * and intensity, all of it per generated weight, against the roofline of this machine.
 * `node bench/cost.mjs [--backend cpu|webgpu] [--name NAME]` prints the reports; with a name it keeps text, JSON and a roofline plot
 * under results/.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { measureMachine } from '../dist/src/cli/machine.js';
import * as wl from '../dist/src/index.js';

const { values: options } = parseArgs({
  options: { backend: { type: 'string', default: 'cpu' }, name: { type: 'string' } },
});
const backend = await wl.init({ backend: options.backend, threads: 1 });
const { flops, levels } = await measureMachine(backend);
const machine = { flops: flops.perSecond, bandwidth: levels.at(-1).copy.perSecond };

const [T, n, E, i, o] = [128, 5, 64, 256, 128];
const draw = (at, ...shape) => wl.uniform(wl.key(at), shape, -0.5, 0.5);
const operands = { code: draw(1, T, E), basis: draw(2, E, i, o) };
const [x, y] = [draw(3, T, n, i), draw(4, T, n, o)];
const loss = ({ code, basis }) =>
  wl.mean(wl.square(wl.sub(wl.linear(x, new wl.FullGenerated(code, basis)), y)));
const slopes = operands => wl.grad(loss)(operands);
const steepness = operands => wl.add(...Object.values(slopes(operands)).map(g => wl.sum(wl.square(g))));
const passes = {
  forward: loss,
  backward: wl.valueAndGrad(loss),
  'double backward': wl.valueAndGrad(steepness),
};

const reports = [];
for (const [name, pass] of Object.entries(passes)) {
  const step = wl.compile(pass);
  let least = Infinity;
  for (let k = 0; k < 40; k++) {
    const start = performance.now();
    const result = step(operands);
    await wl.sync(backend);
    if (k > 1) least = Math.min(least, performance.now() - start);
    for (const out of wl.tree.leaves(result)) if (out instanceof wl.Tensor) out.dispose();
  }
  reports.push({ name, cost: wl.costReport(step, { weights: T * i * o, seconds: least / 1e3, machine }) });
}
const head = `T ${T}, n ${n}, E ${E}, ${i} x ${o}: ${T * i * o} generated weights, ${options.backend}, ${backend.describe().adapter ?? 'one thread'}`;
const rates = `this machine: ${(machine.flops / 1e9).toFixed(0)} GFLOP/s, ${(machine.bandwidth / 1e9).toFixed(1)} GB/s`;
const texts = reports.map(({ name, cost }) => `## ${name}\n\n\`\`\`\n${wl.costText(cost)}\n\`\`\``);
const text = `# What generated weights cost\n\n${head}; ${rates}.\n\n${texts.join('\n\n')}\n`;
console.log(text);
if (options.name) {
  const file = ending => join(import.meta.dirname, 'results', `${options.name}.${ending}`);
  writeFileSync(file('md'), text);
  writeFileSync(file('json'), `${JSON.stringify({ layer: { T, n, E, i, o }, machine, reports }, null, 1)}\n`);
  writeFileSync(file('svg'), wl.rooflineSvg(reports, machine));
}
process.exit(0);
