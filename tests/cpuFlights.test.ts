/** Long steps of the native backend: they leave the event loop free and change nothing else. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { Addon } from '../src/backends/cpu/addon.js';
import { createCpu } from '../src/backends/cpu.js';
import type { Backend } from '../src/core/backend.js';
import { KernelError } from '../src/core/errors.js';
import { sync } from '../src/core/queue.js';
import { type Tensor, use } from '../src/core/tensor.js';
import * as o from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';

/** Numbers of jobs that are told to have failed, once. */
const broken: number[] = [];
/** The number of the last job handed to the executor. */
let jobs = 0;
vi.mock('../src/backends/cpu/addon.js', async original => {
  const { loadAddon } = await original<typeof import('../src/backends/cpu/addon.js')>();
  return {
    loadAddon: async (): Promise<Addon> => {
      const addon = await loadAddon();
      const counted = (job: number) => {
        jobs = Math.max(jobs, job);
        return job;
      };
      const own: Partial<Addon> = {
        submit: (...args) => counted(addon.submit(...args)),
        run: (...args) => {
          const result = addon.run(...args);
          if (result < -1) counted(-1 - result);
          return result;
        },
        failures: () => {
          const done = addon.done();
          const now = broken.filter(job => job <= done);
          broken.splice(0, broken.length, ...broken.filter(job => job > done));
          return [...addon.failures(), ...now.map((job): [number, string] => [job, 'out of memory'])];
        },
      };
      return Object.create(addon, Object.getOwnPropertyDescriptors(own)) as Addon;
    },
  };
});

let cpu: Backend;
beforeAll(async () => {
  cpu = await createCpu({ threads: 1 });
  use(cpu);
});
afterAll(() => cpu.dispose());

const n = 500;
/** Some 30 ms of products on one thread, whose values stay of one size. */
const long = (a: Tensor, b: Tensor): Tensor => {
  let x = a;
  for (let i = 0; i < 12; i++) x = o.mul(o.matmul(x, b), 1 / Math.sqrt(n));
  return x;
};
const matrix = (seed: number) => o.normal(o.key(seed), [n, n]);
const bits = (values: ArrayLike<number>) => Buffer.from(Float32Array.from(values).buffer).toString('base64');

describe('a long step', () => {
  test.each([
    ['eager', long],
    ['compiled', compile(long)],
  ])('leaves timers running while it is read, %s', async (_, step) => {
    const [a, b] = [matrix(1), matrix(2)];
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    const before = jobs;
    const values = await step(a, b).data();
    clearInterval(timer);
    expect(jobs).toBeGreaterThan(before);
    expect(ticks).toBeGreaterThan(1);
    expect(bits(values)).toBe(bits(step(a, b).dataSync()));
  });

  test('has the order and the values of work that waits each time', async () => {
    const update = compile(
      (w: Tensor, x: Float32Array | Tensor, rate: number): [Tensor, Tensor] => {
        const y = long(w, o.reshape(x as Tensor, [n, n]));
        return [o.sub(w, o.mul(y, rate)), o.mean(o.square(y))];
      },
      { donate: [0] },
    );
    const train = async (wait: boolean) => {
      const pause = async () => (wait ? sync(cpu) : undefined);
      const batch = new Float32Array(n * n);
      const seen: (Promise<ArrayLike<number>> | ArrayLike<number>)[] = [];
      let w = o.add(matrix(3), 0);
      for (let i = 0; i < 12; i++) {
        batch.fill(i / 10);
        batch[i] = 2;
        const before = w;
        // Read before the step takes its memory over; must not see the step.
        if (i % 3 === 0) seen.push(before.data());
        const [next, loss] = update(before, batch, 0.01 * i);
        await pause();
        seen.push(loss.data());
        w = next;
        if (i % 4 === 1) seen.push(o.sum(o.transpose(o.slice(w, 0, 1, 9)), 0).data());
        if (i % 5 === 2) seen.push(o.slice(w, 1, 3, 40).dataSync());
      }
      seen.push(w.data());
      return (await Promise.all(seen)).map(bits);
    };
    const before = jobs;
    const waited = await train(true);
    expect(jobs - before).toBeGreaterThanOrEqual(12);
    expect(await train(false)).toEqual(waited);
    update.dispose();
  });

  test('that fails rejects with a KernelError, as does what depends on it and nothing else', async () => {
    const step = compile(long);
    const [a, b] = [matrix(1), matrix(2)];
    const good = bits(step(a, b).dataSync());
    broken.push(jobs + 1);
    const failed = step(a, b);
    const after = step(failed, b);
    const other = step(a, b);
    const reads = [failed.data(), o.sum(after).data(), other.data()];
    const [first, second, third] = await Promise.allSettled(reads);
    for (const outcome of [first, second]) {
      expect(outcome.status).toBe('rejected');
      expect((outcome as PromiseRejectedResult).reason).toBeInstanceOf(KernelError);
      expect(String((outcome as PromiseRejectedResult).reason)).toMatch(/out of memory/);
    }
    expect(third.status === 'fulfilled' && bits(third.value)).toBe(good);
    expect(() => failed.dataSync()).toThrowError(KernelError);
    expect(() => step(failed, b)).toThrowError(KernelError);
    expect(() => o.add(failed, 1).dataSync()).toThrowError(KernelError);
    expect(bits(step(a, b).dataSync())).toBe(good);
    step.dispose();
  });

  test('keeps its memory until it is done, and gives it back then', async () => {
    const step = compile(long);
    const b = matrix(2);
    const want = bits(step(matrix(4), b).dataSync());
    const before = cpu.describe().cachedBytes as number;
    for (let i = 0; i < 20; i++) {
      const a = matrix(4);
      const y = step(a, b);
      a.dispose();
      const read = y.data();
      y.dispose();
      // Would be made where `a` was, were that free.
      const filled = o.full([n, n], i);
      if (i % 7 === 0) filled.dataSync();
      filled.dispose();
      if (i % 5 === 0) expect(bits(await read)).toBe(want);
    }
    await sync(cpu);
    expect(cpu.describe().cachedBytes).toBeGreaterThan(before);
    step.dispose();
  });

  test.each([
    ['waits for what is read', 'y.data().then(v => console.log(v.length))', `${n * n}\n`],
    ['does not wait for what nobody reads', '', ''],
  ])('in a process that %s', (_, last, want) => {
    const dist = (file: string) => JSON.stringify(join(import.meta.dirname, '../dist/src', file));
    const script = `
      const { init } = await import(${dist('backends/init.js')});
      const o = await import(${dist('ops/index.js')});
      const { compile } = await import(${dist('program/compile.js')});
      await init({ backend: 'cpu', threads: 1 });
      const a = o.normal(o.key(1), [${n}, ${n}]);
      const step = compile(a => { for (let i = 0; i < 12; i++) a = o.mul(o.matmul(a, a), 1e-2); return a; });
      const y = step(a);
      ${last}`;
    expect(execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })).toBe(
      want,
    );
  });
});
