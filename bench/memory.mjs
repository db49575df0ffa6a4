/**
 * What a compiled step is predicted to take of memory beside what it takes: on cpu the high-water mark of a fresh process
 * over what it held before the operands were made (Linux tells it in /proc/self/status), on webgpu the bytes of the
 * buffers created. `node bench/memory.mjs [--backend cpu|webgpu] [--name NAME]` prints a table, and keeps it under
 * results/ with a name.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    backend: { type: 'string', default: 'cpu' },
    name: { type: 'string' },
    child: { type: 'string' },
  },
});

/** The garbage collector's young generation may otherwise hold 48 MB of garbage. */
const FLAGS = ['--expose-gc', '--max-semi-space-size=1'];
const MB = 2 ** 20;
/** What a kernel of a compiled step takes of the process's memory beside the tensors: the steps of hundreds tell. */
const KERNEL_BYTES = 10_000;
const big = { kind: 'full', tasks: 512, rows: 5, code: 64, in: 256, out: 256 };
const many = { kind: 'full', tasks: 4096, rows: 1, code: 32, in: 128, out: 128 };
const low = { kind: 'lowRank', tasks: 4096, rows: 10, code: 8, in: 256, out: 256 };
const CASES = [
  { shapes: big, pass: 'fwd', strategy: 'materialise' },
  { shapes: big, pass: 'fwdbwd', strategy: 'materialise' },
  { shapes: big, pass: 'fwdbwd', strategy: 'materialise', maxBytes: 160 * MB },
  { shapes: big, pass: 'fwdbwd', strategy: 'materialise', maxBytes: 100 * MB },
  { shapes: big, pass: 'fwd', strategy: 'fused' },
  { shapes: big, pass: 'fwdbwd', strategy: 'fused' },
  { shapes: big, pass: 'fwdbwd', strategy: 'reorder' },
  { shapes: big, pass: 'fwdbwd', strategy: 'reorder', maxBytes: 100 * MB },
  { shapes: many, pass: 'fwdbwd', strategy: 'materialise' },
  { shapes: many, pass: 'fwdbwd', strategy: 'materialise', maxBytes: 64 * MB },
  { shapes: many, pass: 'fwdbwd', strategy: 'reorder' },
  { shapes: low, pass: 'fwd', strategy: 'lowRank' },
  { shapes: low, pass: 'fwdbwd', strategy: 'lowRank' },
];

const status = name =>
  1024 * Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))[1]);

async function child({ backend: name, shapes, pass, strategy, maxBytes }) {
  const { full, init, sync } = await import('../dist/src/index.js');
  const { layerOf } = await import('../dist/src/cli/plans.js');
  const backend = await init({ backend: name, threads: 1 });
  // Random numbers would need temporaries of their own.
  const draw = shape => full(shape, 0.5);
  const run = async (sizes, limits) => {
    const layer = layerOf(sizes, pass, { strategy, draw, ...limits });
    for (let k = 0; k < 3; k++) {
      layer.call();
      await sync(backend);
    }
    return layer;
  };
  const buffers = () => backend.describe().counters.bytes;
  const bytes = () => (name === 'webgpu' ? buffers() : status('VmRSS'));
  (await run({ ...shapes, tasks: 2, rows: 2, code: 2, in: 2, out: 2 })).dispose();
  globalThis.gc();
  const before = bytes();
  if (name === 'cpu') writeFileSync('/proc/self/clear_refs', '5');
  const layer = await run(shapes, { maxBytes });
  const measured = (name === 'webgpu' ? buffers() : status('VmHWM')) - before;
  const { peakBytes, commands } = layer.stats();
  // The buffers of a device hold no program.
  const predicted = peakBytes + (name === 'webgpu' ? 0 : KERNEL_BYTES * commands.length);
  console.log(JSON.stringify({ predicted, measured, commands: commands.length }));
  process.exit(0);
}

function parent() {
  const lines = CASES.map(row => {
    const given = JSON.stringify({ ...row, backend: options.backend });
    const self = fileURLToPath(import.meta.url);
    const { stdout, stderr } = spawnSync(process.execPath, [...FLAGS, self, '--child', given], {
      encoding: 'utf8',
    });
    const line = stdout.split('\n').find(text => text.startsWith('{'));
    if (!line) throw new Error(stderr);
    return { ...row, ...JSON.parse(line) };
  });
  const mega = bytes => (bytes === undefined ? '' : (bytes / MB).toFixed(1));
  const table = lines.map(
    ({ shapes: s, pass, strategy, maxBytes, predicted, measured, commands, error }) =>
      `| T ${s.tasks}, n ${s.rows}, ${s.kind === 'lowRank' ? 'r' : 'E'} ${s.code}, ${s.in} x ${s.out} | ${strategy} | ${pass} | ${mega(maxBytes)} | ` +
      (error
        ? `refused: ${error.replace(/\(.*|'.*'/, '')} | | | |`
        : `${commands} | ${mega(predicted)} | ${mega(measured)} | ${(100 * (predicted / measured - 1)).toFixed(1)} % |`),
  );
  const text = [
    `# Memory of compiled steps: predicted and measured (${options.backend})`,
    '',
    `MB of 2^20 bytes: operands, results and temporaries${options.backend === 'webgpu' ? '' : `, and ${KERNEL_BYTES / 1000} kB a kernel for the program itself`}. Measured: ` +
      (options.backend === 'webgpu'
        ? 'the bytes of all buffers the backend created for the step.'
        : 'the high-water mark of a fresh process, less what it held before the operands were made (Node with --max-semi-space-size=1).'),
    `Made by \`node bench/memory.mjs --backend ${options.backend}\` on ${new Date().toISOString().slice(0, 10)}.`,
    '',
    '| layer | plan | pass | maxBytes | kernels | predicted | measured | off by |',
    '|---|---|---|---:|---:|---:|---:|---:|',
    ...table,
    '',
  ].join('\n');
  console.log(text);
  if (options.name) writeFileSync(join(root, 'bench/results', `${options.name}.md`), text);
}

if (!options.child) parent();
else
  try {
    await child(JSON.parse(options.child));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message }));
    process.exit(0);
  }
