/**
 * Times weightloom and its peers alternately in the same minutes and prints one table: the smallest median of the
 * rounds per case, since the machine's other users only ever slow a run down.
 *
 *   node bench/compare.mjs [--suite E] [--threads 1] [--rounds 3] [--backend cpu] [--peers DIR] [--out FILE]
 *
 * DIR holds workloads.json and the peers' scripts (default ../shared/peers or WEIGHTLOOM_PEERS; its README says what to
 * install). PYTHON names the interpreter that has torch. Peers that are not installed are left out with one line.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

const root = join(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: {
    suite: { type: 'string', default: 'E' },
    threads: { type: 'string', default: '1' },
    rounds: { type: 'string', default: '3' },
    backend: { type: 'string', default: 'cpu' },
    peers: { type: 'string', default: process.env.WEIGHTLOOM_PEERS ?? join(root, '../shared/peers') },
    out: { type: 'string' },
  },
});
const { suite, threads, rounds, backend } = options;
const peers = resolve(options.peers);
if (!existsSync(join(peers, 'workloads.json'))) {
  console.error(`no workloads.json in ${peers}; expected --peers DIR`);
  process.exit(2);
}

/** Some environments preset what halves OpenBLAS; Python must not write beside the scripts. */
const { OPENBLAS_CORETYPE, OPENBLAS_L2_SIZE, ...environment } = process.env;
environment.PYTHONDONTWRITEBYTECODE = '1';

const python = process.env.PYTHON ?? '/usr/bin/python3';
const torch = (name, env = {}) => ({
  name,
  command: [python, join(peers, 'torch_cpu.py'), threads, suite],
  env: { PEER_NAME: name, ...env },
});
const RUNS = [
  {
    name: 'weightloom',
    command: [
      process.execPath,
      ...[join(root, 'dist/src/cli/main.js'), 'bench', '--json', '--suite', suite, '--threads', threads],
      ...['--backend', backend, '--workloads', join(peers, 'workloads.json')],
    ],
  },
  torch('torch'),
  // torch 1.13 keeps to AVX2 unless told.
  torch('torch-avx512', { ATEN_CPU_CAPABILITY: 'avx512' }),
  { name: 'jax-js-wasm', command: [process.execPath, join(peers, 'jaxjs.mjs'), 'wasm', threads, suite] },
];

const lines = [];
const absent = new Set();
for (let round = 1; round <= Number(rounds); round++)
  for (const { name, command, env } of RUNS) {
    if (absent.has(name)) continue;
    console.error(`round ${round} of ${rounds}: ${name}`);
    const { status, stdout, stderr } = spawnSync(command[0], command.slice(1), {
      encoding: 'utf8',
      env: { ...environment, ...env },
    });
    const found = (stdout ?? '').split('\n').filter(line => line.startsWith('{'));
    lines.push(...found.map(line => JSON.parse(line)));
    if (found.length > 0) continue;
    absent.add(name);
    console.error(
      `${name} is left out: ${(stderr ?? '').trim().split('\n').at(-1) || `exit code ${status}`}`,
    );
  }

const best = new Map();
for (const line of lines) {
  const key = [line.w, line.id, line.pass].join(' ');
  const row = best.get(key) ?? best.set(key, new Map()).get(key);
  const before = row.get(line.peer);
  if (!before || (line.ms ?? Infinity) < (before.ms ?? Infinity)) row.set(line.peer, line);
}
const names = [...new Set(lines.map(line => line.peer))];
console.log(`ms, the smallest median of ${rounds} rounds, ${threads} thread${threads === '1' ? '' : 's'}\n`);
console.log(`| case | ${names.join(' | ')} |\n|---|${names.map(() => '---:').join('|')}|`);
for (const [key, row] of best) {
  const cells = names.map(name => {
    const line = row.get(name);
    return line === undefined ? '' : line.ms === undefined ? 'failed' : line.ms.toPrecision(4);
  });
  console.log(`| ${key.slice(2)} | ${cells.join(' | ')} |`);
}
const notes = [...best.values()].flatMap(row => [...row.values()]).filter(({ note, error }) => note || error);
for (const { peer, id, note, error } of notes) console.log(`\n${peer} ${id}: ${error ?? note}`);
if (options.out) writeFileSync(options.out, `${lines.map(line => JSON.stringify(line)).join('\n')}\n`);
