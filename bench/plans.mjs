/**
 * The planner against the lines of `bench --suite I --json`, which tell what every plan of 300 shapes took: how often its
 * choice is within 10 % of the best, by the rates kept for this device (`bench --calibrate`), by rates fitted to one half of
 * the lines and judged on the other, and by round figures. `node bench/plans.mjs LINES.jsonl [--backend webgpu] [--name NAME]
 * [--note TEXT]` prints the table, and keeps it and the lines, judged, under results/ with a name.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { judge, samplesOf, scoresOf, showPlans } from '../dist/src/cli/plans.js';
import { init } from '../dist/src/index.js';
import { fitRates, machineOf } from '../dist/src/program/rates.js';

const {
  values: options,
  positionals: [file],
} = parseArgs({
  allowPositionals: true,
  options: {
    backend: { type: 'string', default: 'cpu' },
    name: { type: 'string' },
    note: { type: 'string', default: '' },
  },
});
const backend = await init({ backend: options.backend, threads: 1 });
const machine = machineOf(backend);
const order = ({ id, pass }) => 2 * Number(id.slice(1)) + Number(pass === 'fwdbwd');
const measured = readFileSync(file, 'utf8')
  .split('\n')
  .filter(text => text.startsWith('{'))
  .map(text => JSON.parse(text))
  .filter(line => line.ms)
  .sort((a, b) => order(a) - order(b));

const judged = (rates, lines = measured) => lines.map(line => judge(line, { ...machine, rates }));
const half = odd => measured.filter(({ id }) => Number(id.slice(1)) % 2 === odd);
const crossed = [0, 1].flatMap(odd => judged(fitRates(half(1 - odd).flatMap(samplesOf)), half(odd)));
const lines = machine.rates ? judged(machine.rates) : crossed.sort((a, b) => order(a) - order(b));
const scores = scoresOf(lines);

const WORST = 20;
const worst = lines.toSorted((a, b) => b.loss - a.loss).slice(0, WORST);
const fence = shown => ['```', ...shown.map(showPlans), '```', ''];
const { adapter = 'one thread' } = backend.describe();
const text = [
  `# The planner's choices, ${options.backend} (${adapter})`,
  '',
  'Suite I: 300 shapes of seed 0 (log-uniform T 1..1024, n 1..100, E 4..256, i and o 1..512), the plans materialise, fused',
  `and reorder measured by turns, least of the samples. Made by \`bench --suite I --json --backend ${options.backend}\` and`,
  `\`node bench/plans.mjs\` on ${new Date().toISOString().slice(0, 10)}${options.note && `; ${options.note}`}. Every line is in ${options.name ? `${options.name}.jsonl` : file}.`,
  '',
  ...(machine.rates
    ? [
        'By the rates kept for this device (`bench --calibrate`), fitted to other shapes:',
        '',
        ...fence(scores),
      ]
    : []),
  'By rates fitted to the shapes of even numbers and judged on those of odd ones, and the other way round:',
  '',
  ...fence(scoresOf(crossed)),
  'By round figures, of which a device without rates is assumed to be:',
  '',
  ...fence(scoresOf(judged())),
  `The ${WORST} worst choices (by the rates named first): milliseconds, predictions in brackets, a star at the plan chosen, its`,
  'time over the least.',
  '',
  ...fence(worst),
].join('\n');
console.log(text);
if (options.name) {
  const kept = ending => join(import.meta.dirname, 'results', `${options.name}.${ending}`);
  writeFileSync(kept('md'), text);
  writeFileSync(kept('jsonl'), [...lines, ...scores].map(line => `${JSON.stringify(line)}\n`).join(''));
}
process.exit(0);
