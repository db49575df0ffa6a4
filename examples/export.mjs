/**
 * One task's network, without the hypernetwork: its weights are made once, written as safetensors, read back as plain
 * tensors, and answer as the generated ones do. Prints bytes and the largest difference.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as wl from 'weightloom';
import { loadSafetensors, saveSafetensors } from 'weightloom/node';

await wl.init();
const target = wl.serial(wl.dense(40), wl.relu, wl.dense(1));
const condition = wl.setEncoder([32]);
const hyper = wl.hypernet({ target, inShape: [3], condition, trunk: wl.dense(32), head: wl.fullHead() });
const phi = hyper.init(wl.key(0));

const support = { x: wl.normal(wl.key(1), [5, 8, 3]), y: wl.normal(wl.key(2), [5, 8, 1]) }; // five tasks
const theta = wl.materialise(hyper.generate(phi, hyper.encode(phi, support)));
const third = wl.tree.map(w => wl.squeeze(wl.slice(w, 0, 2, 3), 0), theta);

const folder = mkdtempSync(join(tmpdir(), 'weightloom-export-'));
const path = join(folder, 'third.safetensors');
const named = await Promise.all(
  wl.tree.entries(third).map(async ([name, w]) => [name, { shape: w.shape, data: await w.data() }]),
);
await saveSafetensors(path, named, {});
const { size } = statSync(path);
const { tensors } = await loadSafetensors(path);
rmSync(folder, { recursive: true });

const read = wl.tree.mapWithPath(name => wl.tensor(tensors.get(name).data, tensors.get(name).shape), third);
const x = wl.normal(wl.key(3), [4, 3]);
const all = target.apply(theta, wl.broadcastTo(x, [5, 4, 3]));
const own = wl.squeeze(wl.slice(all, 0, 2, 3), 0);
const difference = Math.max(...(await wl.abs(wl.sub(target.apply(read, x), own)).data()));
console.log(JSON.stringify({ weights: hyper.weightCount, bytes: size, difference }));
