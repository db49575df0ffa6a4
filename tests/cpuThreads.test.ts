/** The native backend's threads as a process sees them: idle ones, those of Node's workers, and the end. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const dist = (file: string) => JSON.stringify(new URL(`../dist/src/${file}`, import.meta.url));
/** What every script begins with: `work(seed)` computes for some milliseconds on two threads and returns its sum. */
const preamble = `
  const { init } = await import(${dist('backends/init.js')});
  const o = await import(${dist('ops/index.js')});
  const { compile } = await import(${dist('program/compile.js')});
  const { Worker, isMainThread, parentPort, workerData } = await import('node:worker_threads');
  await init({ backend: 'cpu', threads: 2 });
  const step = compile(a => {
    let x = a;
    for (let i = 0; i < 4; i++) x = o.softmax(o.mul(o.matmul(x, a), 0.05));
    return o.sum(o.mul(x, a));
  });
  const work = seed => step(o.normal(o.key(seed), [300, 300])).dataSync()[0];
`;
const spawn = 'const spawn = data => new Worker(new URL(import.meta.url), { workerData: data });';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weightloom-threads-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs a module of the preamble and `script` in a process of its own; returns what it printed. */
async function run(script: string): Promise<string> {
  const file = join(folder, 'script.mjs');
  writeFileSync(file, preamble + script);
  return (await promisify(execFile)(process.execPath, [file], { timeout: 50_000 })).stdout;
}

test('an idle process uses no CPU after work on several threads', async () => {
  const printed = await run(`
    for (let i = 0; i < 20; i++) work(i);
    await new Promise(resolve => setTimeout(resolve, 50));
    const before = process.cpuUsage();
    await new Promise(resolve => setTimeout(resolve, 500));
    const { user, system } = process.cpuUsage(before);
    console.log((user + system) / 500e3);
  `);
  expect(Number(printed)).toBeLessThan(0.1);
});

test('workers compute at once, each what one computes alone, and the process ends while the pool sleeps', async () => {
  const printed = await run(`${spawn}
    const all = () => Array.from({ length: 30 }, (_, seed) => work(seed)).join();
    if (!isMainThread) parentPort.postMessage(all());
    else {
      const others = [1, 2].map(spawn).map(w => new Promise((resolve, reject) => w.on('message', resolve).on('error', reject)));
      const mine = all();
      console.log((await Promise.all(others)).every(theirs => theirs === mine));
    }
  `);
  expect(printed).toBe('true\n');
});

test('a worker can be ended while its long step runs', async () => {
  const printed = await run(`${spawn}
    const long = compile(a => { let x = a; for (let i = 0; i < 12; i++) x = o.mul(o.matmul(x, a), 0.04); return x; });
    if (!isMainThread) {
      for (let i = 0; i < 5; i++) long(o.normal(o.key(i), [600, 600]));
      parentPort.postMessage('running');
      await long(o.normal(o.key(9), [600, 600])).data();
    } else {
      const worker = spawn(1);
      await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
      await worker.terminate();
      console.log(work(1) === work(1));
    }
  `);
  expect(printed).toBe('true\n');
});
