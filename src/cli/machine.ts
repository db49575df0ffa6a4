/** What this machine can do at most, measured by the backend that is timed, and the bounds that follow from it. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Backend } from '../core/backend.js';
import { sync } from '../core/queue.js';
import { full } from '../core/tensor.js';

/** Rates of one memory in bytes a second. Those of a copy count what is read and what is written. */
export interface Level {
  readonly name: 'l2' | 'l3' | 'memory';
  /** Data of up to so many bytes are taken to stay in it. */
  readonly capacity: number;
  readonly read: Rate;
  readonly write: Rate;
  readonly copy: Rate;
}

/** The fastest of `n` samples: operations or bytes a second, and the milliseconds of the sample. */
export interface Rate {
  readonly perSecond: number;
  readonly ms: number;
  readonly n: number;
}

/** Floating-point operations a second (a multiply-add is two), and memories from the nearest outwards. */
export interface Machine {
  readonly flops: Rate;
  readonly levels: readonly Level[];
}

type Mode = 'fma' | 'read' | 'write' | 'copy' | 'writeAround' | 'copyAround';

const KILOBYTE = 1024;
const MOST_BYTES = 512 * KILOBYTE * KILOBYTE;
const SAMPLES = 5;
const SAMPLE_MS = 2;
/** Operations in one repeat of the kernel `machine` in the mode 'fma' (see native/kernels/machine.inc). */
const FLOPS_PER_REPEAT = 2 * 12 * 16;
/** Elements of which each piece must hold a whole number: the widest vectors, eight at a time. */
const STEP = 128;

/** Bytes of a cache of this machine's first processor, where the system tells them. */
function cacheBytes(level: number, otherwise: number): number {
  for (let index = 0; index < 8; index++) {
    const file = (name: string) =>
      readFileSync(`/sys/devices/system/cpu/cpu0/cache/index${index}/${name}`, 'utf8').trim();
    try {
      if (Number(file('level')) === level && file('type') !== 'Instruction')
        return Number.parseInt(file('size'), 10) * KILOBYTE;
    } catch {
      break;
    }
  }
  return otherwise;
}

const threadsOf = (backend: Backend): number => {
  const { threads } = backend.describe();
  return typeof threads === 'number' ? threads : availableParallelism();
};

/** Times the kernel `machine` on two vectors of `elements`; `perRepeat` is what one repeat of all pieces does. */
async function rateOf(
  backend: Backend,
  modes: readonly Mode[],
  elements: number,
  perRepeat: number,
  n = SAMPLES,
): Promise<Rate> {
  const pieces = threadsOf(backend);
  const [x, y] = [full([elements], 1, backend), full([elements], 1, backend)];
  const once = async (mode: Mode, repeats: number): Promise<number> => {
    const attrs = { mode, repeats, pieces };
    const start = performance.now();
    backend.run([{ kernel: 'machine', op: 'bench', outs: [y.view], ins: [x.view], attrs }]);
    await backend.sync();
    return performance.now() - start;
  };
  let best: Rate = { perSecond: 0, ms: 0, n };
  try {
    await sync(backend);
    for (const mode of modes) {
      let repeats = 1;
      await once(mode, repeats);
      for (let ms = await once(mode, 1); ms < SAMPLE_MS; ms = await once(mode, repeats))
        repeats = Math.ceil(repeats * Math.min(100, (1.2 * SAMPLE_MS) / ms));
      for (let i = 0; i < n; i++) {
        const ms = await once(mode, repeats);
        const perSecond = (perRepeat * repeats) / (ms / 1e3);
        if (perSecond > best.perSecond) best = { perSecond, ms: ms / repeats, n };
      }
    }
  } finally {
    x.dispose();
    y.dispose();
  }
  return best;
}

/** Operations a second, now: the fastest of `samples` of 2 ms. They are fewer while others use the processor. */
export const measureFlops = (backend: Backend, samples = SAMPLES): Promise<Rate> => {
  const pieces = threadsOf(backend);
  return rateOf(backend, ['fma'], STEP * pieces, FLOPS_PER_REPEAT * pieces, samples);
};

/** Measures the machine with the backend's threads and instruction set; null where the backend cannot. */
export async function measureMachine(backend: Backend): Promise<Machine | null> {
  if (!backend.has('machine')) return null;
  const threads = threadsOf(backend);
  const l2 = cacheBytes(2, 1024 * KILOBYTE) * threads;
  const l3 = cacheBytes(3, 16 * 1024 * KILOBYTE);
  const levels: Level[] = [];
  // The last level is shared with what else the machine runs: a case near its size does not stay in it.
  for (const [name, capacity, bytes] of [
    ['l2', l2, l2 / 2],
    ['l3', 0.75 * l3, 0.375 * l3],
    ['memory', Infinity, Math.min(16 * l3, MOST_BYTES)],
  ] as const) {
    const elements = Math.ceil(bytes / 8 / (STEP * threads)) * STEP * threads;
    levels.push({
      name,
      capacity,
      read: await rateOf(backend, ['read'], elements, 4 * elements),
      write: await rateOf(backend, ['write', 'writeAround'], elements, 4 * elements),
      copy: await rateOf(backend, ['copy', 'copyAround'], elements, 8 * elements),
    });
  }
  return { flops: await measureFlops(backend), levels };
}

/**
 * Milliseconds that `flops` operations on `read` bytes of operands and `written` bytes of results take at least: at the
 * peak rate of operations, or at the rates of the nearest memory that holds them all, each byte moved once.
 */
export function boundOf(machine: Machine, flops: number, read: number, written: number): number {
  const level = machine.levels.find(({ capacity }) => read + written <= capacity)!;
  return (
    1e3 *
    Math.max(
      flops / machine.flops.perSecond,
      read / level.read.perSecond,
      written / level.write.perSecond,
      (read + written) / level.copy.perSecond,
    )
  );
}
