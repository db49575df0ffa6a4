/**
 * Weights generated and applied per second: every plan of weightloom beside every formulation of PyTorch, by turns, over the
 * grid of `bench --suite generate`. `node bench/generate.mjs [--prefix 'nice -n -5'] [--name NAME]` prints a table; with a
 * name it keeps table, lines and a picture under results/.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    prefix: { type: 'string', default: '' },
    python: { type: 'string', default: '/usr/bin/python3' },
    case: { type: 'string', default: '' },
    name: { type: 'string' },
  },
});
const prefix = options.prefix.split(' ').filter(Boolean);
/** PyTorch's own kernels at their best: see the peers' notes. */
const TIMED = {
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: '17179869184',
  MALLOC_TOP_PAD_: '268435456',
  ATEN_CPU_CAPABILITY: 'avx512',
};

function run(command, env = {}) {
  const [program, ...args] = [...prefix, ...command];
  const { OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE, ...inherited } = process.env;
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', env: { ...inherited, ...env } });
  const lines = stdout.split('\n').filter(line => line.startsWith('{'));
  if (lines.length === 0) throw new Error(`${command.join(' ')}: ${stderr}`);
  return lines.map(line => JSON.parse(line));
}
const ours = pattern =>
  run([
    process.execPath,
    join(root, 'dist/src/cli/main.js'),
    'bench',
    '--suite',
    'generate',
    '--json',
    ...['--backend', 'cpu', '--threads', '1', '--case', pattern],
  ]);
const torch = (mode, ids, env) =>
  run(
    [
      options.python,
      join(root, 'bench/generate_torch.py'),
      mode,
      '1',
      ...ids.map(id => id.match(/\d+/g).join()),
    ],
    env,
  );

const first = ours(options.case || '.');
const ids = [...new Set(first.map(({ id }) => id))];
const timed = ids.flatMap(id => [
  ...torch('time', [id], TIMED),
  ...ours(`^${id}$`),
  ...torch('time', [id], TIMED),
]);
const lines = new Map();
const keyOf = ({ peer, id, pass }) => [peer, id, pass].join();
for (const line of [...first, ...timed]) {
  const old = lines.get(keyOf(line));
  if (!old || !(old.ms <= line.ms)) lines.set(keyOf(line), line);
}
for (const line of torch('memory', ids)) Object.assign(lines.get(keyOf(line)), line);
const all = [...lines.values()];
for (const line of all) {
  const [T, , , i, o] = line.id.match(/\d+/g).map(Number);
  if (line.ms) line.weights_per_s = Number(((1e3 * T * i * o) / line.ms).toPrecision(5));
}

const mega = x => (x === undefined ? '' : (x / 1e6).toPrecision(4));
const rows = ids.flatMap(id =>
  ['fwd', 'fwdbwd'].map(pass => {
    const mine = all.filter(line => line.id === id && line.pass === pass && line.ms !== undefined);
    const best = peer => mine.filter(line => line.peer.startsWith(peer)).sort((a, b) => a.ms - b.ms)[0];
    return { id, pass, own: best('weightloom'), torch: best('torch'), mine };
  }),
);
const ratio = ({ own, torch }) => torch.ms / own.ms;
const mean = pass => {
  const mine = rows.filter(row => row.pass === pass);
  return Math.exp(mine.reduce((sum, row) => sum + Math.log(ratio(row)), 0) / mine.length).toFixed(2);
};
const cell = line =>
  `${line.peer.replace(/^\w+?-(cpu-)?/, '')} ${mega(line.weights_per_s)} (${mega(line.bytes)})`;
const text = [
  '# Weights generated and applied, cpu, one thread',
  '',
  'Each cell: the plan or formulation, 10^6 generated weights a second, and in brackets the MB (10^6 bytes) of operands,',
  "results and temporaries (weightloom's predicted, see memory-cpu.md; PyTorch's its process's high-water mark). The best of",
  'each first; ratio: the time of the best formulation of PyTorch over that of the best plan. Geometric means:',
  `forward ${mean('fwd')}, with gradients ${mean('fwdbwd')}. Made by \`node bench/generate.mjs\` on ${new Date().toISOString().slice(0, 10)}.`,
  '',
  '| layer | pass | weightloom | PyTorch | ratio | the others |',
  '|---|---|---|---|---:|---|',
  ...rows.map(row => {
    const others = row.mine
      .filter(line => line !== row.own && line !== row.torch)
      .sort((a, b) => a.ms - b.ms);
    return `| ${row.id} | ${row.pass} | ${cell(row.own)} | ${cell(row.torch)} | ${ratio(row).toFixed(2)} | ${others.map(cell).join('; ')} |`;
  }),
  '',
].join('\n');
console.log(text);

/** Weights a second of every line, logarithmic: a row for each shape, dots by peer, for the pass with gradients. */
function picture() {
  const [left, right, line, top] = [190, 620, 34, 40];
  const dots = all.filter(({ pass, ms }) => pass === 'fwdbwd' && ms !== undefined);
  const logs = dots.map(dot => Math.log10(dot.weights_per_s));
  const [low, high] = [Math.floor(Math.min(...logs)), Math.ceil(Math.max(...logs))];
  const X = value => left + ((Math.log10(value) - low) / (high - low)) * (right - left);
  const height = top + ids.length * line + 40;
  const axis = Array.from({ length: high - low + 1 }, (_, k) => low + k).map(
    k =>
      `<line x1="${X(10 ** k)}" x2="${X(10 ** k)}" y1="${top - 10}" y2="${height - 40}" stroke="#e5e7eb"/>` +
      `<text x="${X(10 ** k)}" y="${height - 22}" text-anchor="middle" fill="#4b5563">1e${k}</text>`,
  );
  const marks = dots.map(({ id, peer, weights_per_s: value }) => {
    const own = peer.startsWith('weightloom');
    const y = top + ids.indexOf(id) * line + (own ? -5 : 5);
    return `<circle cx="${X(value).toFixed(1)}" cy="${y}" r="5" fill="${own ? '#2563eb' : '#9ca3af'}"><title>${peer} ${id}: ${value}</title></circle>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 ${height}" font-family="Inter, sans-serif" font-size="12">`,
    '<title>Generated weights a second by plan and formulation, with gradients</title>',
    `<rect width="640" height="${height}" fill="#ffffff"/>`,
    '<circle cx="20" cy="16" r="5" fill="#2563eb"/><text x="30" y="20" fill="#111827">plans of weightloom</text>',
    '<circle cx="180" cy="16" r="5" fill="#9ca3af"/><text x="190" y="20" fill="#111827">formulations of PyTorch</text>',
    ...axis,
    ...ids.map((id, k) => `<text x="12" y="${top + k * line + 4}" fill="#1f2937">${id}</text>`),
    ...marks,
    `<text x="${(left + right) / 2}" y="${height - 6}" text-anchor="middle" fill="#111827">generated weights a second, with gradients</text>`,
    '</svg>',
    '',
  ].join('\n');
}
if (options.name) {
  const file = ending => join(root, 'bench/results', `${options.name}.${ending}`);
  writeFileSync(file('md'), text);
  writeFileSync(file('jsonl'), `${all.map(entry => JSON.stringify(entry)).join('\n')}\n`);
  writeFileSync(file('svg'), picture());
}
