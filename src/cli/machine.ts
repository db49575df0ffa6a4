/** What this machine can do at most, measured by the backend that is timed, and the bounds that follow from it. */
import { readFileSync } from 'node:fs';
import type { DeviceClock } from '../backends/webgpu/timer.js';
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

/** How the kernel `machine` is used on a backend. */
interface Method {
  /** What one repeat does in the mode 'fma', on vectors of `flopsElements`. */
  readonly flopsPerRepeat: number;
  readonly flopsElements: number;
  /** Parts that threads work on; devices have their own. */
  readonly pieces: number;
  readonly sampleMs: number;
  readonly levels: readonly { name: Level['name']; capacity: number; elements: number }[];
  /** Modes that write and copy; the fastest counts. */
  readonly write: readonly Mode[];
  readonly copy: readonly Mode[];
}

const KILOBYTE = 1024;
const MEGABYTE = KILOBYTE * KILOBYTE;
const SAMPLES = 5;
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

function onProcessor(threads: number): Method {
  const l2 = cacheBytes(2, MEGABYTE) * threads;
  const l3 = cacheBytes(3, 16 * MEGABYTE);
  // Of two vectors that take so many bytes.
  const elements = (bytes: number) => Math.ceil(bytes / 8 / (STEP * threads)) * STEP * threads;
  return {
    // 12 chains of 16 lanes: see native/kernels/machine.inc.
    flopsPerRepeat: 2 * 12 * 16 * threads,
    flopsElements: STEP * threads,
    pieces: threads,
    sampleMs: 2,
    // The last cache is shared with what else the machine runs: a case near its size does not stay in it.
    levels: [
      { name: 'l2', capacity: l2, elements: elements(l2 / 2) },
      { name: 'l3', capacity: 0.75 * l3, elements: elements(0.375 * l3) },
      { name: 'memory', capacity: Infinity, elements: elements(Math.min(16 * l3, 512 * MEGABYTE)) },
    ],
    write: ['write', 'writeAround'],
    copy: ['copy', 'copyAround'],
  };
}

function onDevice(software: boolean, mostBytes: number): Method {
  const threads = software ? 1 << 12 : 1 << 20;
  // Beyond the caches, which the device does not tell.
  const most = (software ? 32 : 256) * MEGABYTE;
  return {
    // 8 chains of 4 lanes: see shaders/machineFma.wgsl.
    flopsPerRepeat: 2 * 8 * 4 * threads,
    flopsElements: threads,
    pieces: 1,
    sampleMs: software ? 20 : 5,
    levels: [{ name: 'memory', capacity: Infinity, elements: Math.min(mostBytes, most) / 4 }],
    write: ['write'],
    copy: ['copy'],
  };
}

function methodOf(backend: Backend): Method {
  const { threads, software, limits } = backend.describe();
  if (software === undefined) return onProcessor(typeof threads === 'number' ? threads : 1);
  const { maxStorageBufferBindingSize = Infinity } = limits as Record<string, number>;
  return onDevice(software === true, maxStorageBufferBindingSize);
}

/**
 * Milliseconds that `work` takes, which waits for what it queues: by the wall's clock, and what its kernels took by the
 * device's, where it has one and `work` submits at most 2048 times.
 */
export async function timesOf(
  backend: Backend,
  work: () => Promise<unknown>,
): Promise<{ wall: number; device: number | null }> {
  let wall = 0;
  const measured = async () => {
    const start = performance.now();
    await work();
    wall = performance.now() - start;
  };
  if ('timed' in backend) return { device: await (backend as Backend & DeviceClock).timed(measured), wall };
  await measured();
  return { wall, device: null };
}

/** Times the kernel `machine` on two vectors of `elements`; `perRepeat` is what one repeat of all pieces does. */
async function rateOf(
  backend: Backend,
  { pieces, sampleMs }: Method,
  modes: readonly Mode[],
  elements: number,
  perRepeat: number,
  n = SAMPLES,
): Promise<Rate> {
  const [x, y] = [full([elements], 1, backend), full([elements], 1, backend)];
  const once = async (mode: Mode, repeats: number): Promise<number> => {
    const attrs = { mode, repeats, pieces };
    const { wall, device } = await timesOf(backend, async () => {
      backend.run([{ kernel: 'machine', op: 'bench', outs: [y.view], ins: [x.view], attrs }]);
      await backend.sync();
    });
    return device ?? wall;
  };
  let best: Rate = { perSecond: 0, ms: 0, n };
  try {
    await sync(backend);
    for (const mode of modes) {
      let repeats = 1;
      await once(mode, repeats);
      for (let ms = await once(mode, 1); ms < sampleMs; ms = await once(mode, repeats))
        repeats = Math.ceil(repeats * Math.min(100, (1.2 * sampleMs) / ms));
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
  const method = methodOf(backend);
  return rateOf(backend, method, ['fma'], method.flopsElements, method.flopsPerRepeat, samples);
};

/** Measures the machine with the backend's threads and instruction set, or its device; null where it cannot. */
export async function measureMachine(backend: Backend): Promise<Machine | null> {
  if (!backend.has('machine')) return null;
  const method = methodOf(backend);
  const levels: Level[] = [];
  for (const { name, capacity, elements } of method.levels) {
    const rate = (modes: readonly Mode[], bytes: number) =>
      rateOf(backend, method, modes, elements, bytes * elements);
    levels.push({
      name,
      capacity,
      read: await rate(['read'], 4),
      write: await rate(method.write, 4),
      copy: await rate(method.copy, 8),
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
