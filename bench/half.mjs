/**
 * What a basis in f16 takes of memory beside one in f32: bytes of it, and the high-water mark of a fresh process (Linux
 * tells it in /proc/self/status) over what it held before the parameters were made, while it generates and applies the
 * networks of some tasks. `node bench/half.mjs` prints both, their ratio, and what a weight changes by.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [T, E, WIDTH] = [8, 128, 512];
const status = name =>
  1024 * Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))[1]);

async function child(format) {
  const wl = await import('../dist/src/index.js');
  await wl.init({ backend: 'cpu', threads: 1 });
  const shapes = [...Array(3)].map(() => [WIDTH, WIDTH]);
  const count = shapes.length * WIDTH * WIDTH;
  const net = wl.compile((code, basis, x) => {
    const made = wl.f16.project(code, basis, null, shapes);
    return made.reduce((h, w) => wl.tanh(wl.linear(h, w, null, { strategy: 'fused' })), x);
  });
  const [code, x] = [wl.full([T, E], 0.1), wl.full([T, 2, WIDTH], 0.1)];
  globalThis.gc();
  const before = status('VmRSS');
  // As a checkpoint is loaded: the values, then the tensor in their place.
  const basis =
    format === 'f16'
      ? wl.tensor(new Uint32Array((E * count) / 2).fill(0x0c000c00), [E, count / 2])
      : wl.full([E, count], 2 ** -12);
  await wl.sync();
  globalThis.gc();
  writeFileSync('/proc/self/clear_refs', '5');
  for (let k = 0; k < 3; k++) await net(code, basis, x).data();
  const held = status('VmHWM') - before;
  console.log(JSON.stringify({ held, bytes: 4 * basis.size, result: (await net(code, basis, x).data())[0] }));
  process.exit(0);
}

function parent() {
  const [wide, half] = ['f32', 'f16'].map(format => {
    const self = fileURLToPath(import.meta.url);
    const flags = ['--expose-gc', '--max-semi-space-size=1', self, format];
    const { stdout, stderr } = spawnSync(process.execPath, flags, { encoding: 'utf8' });
    const line = stdout.split('\n').find(text => text.startsWith('{'));
    if (!line) throw new Error(stderr);
    return JSON.parse(line);
  });
  const mb = x => `${(x / 1e6).toFixed(1)} MB`;
  const row = (name, f) =>
    console.log(`${name}: f32 ${mb(f(wide))}, f16 ${mb(f(half))}, ${(f(half) / f(wide)).toFixed(3)}x`);
  row('basis', x => x.bytes);
  row('high-water mark', x => x.held);
  console.log(`result: f32 ${wide.result}, f16 ${half.result}`);
}

if (process.argv[2]) await child(process.argv[2]);
else parent();
