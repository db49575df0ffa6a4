/** WebGPU in Node: the backend on a device of the npm package `webgpu` (Dawn). */
import type { Backend } from '../../core/backend.js';
import { NoAdapterError } from '../../core/errors.js';
import { asleep } from './asleep.js';
import { createOn, type Parts, type WebGPUOptions } from './backend.js';
import { chain, chains } from './chain.js';
import { Steps } from './executable.js';
import { machine } from './machine.js';
import { withRanges } from './ranges.js';
import { SettlingSteps } from './settling.js';
import type { Tunable } from './tiling.js';
import { PassTimer } from './timer.js';
import { whole } from './training.js';

/** What Node offers beside the options of browsers. */
export interface DawnOptions extends WebGPUOptions {
  /** Computes the tiers of `precision` without subgroup matrices, with the same roundings: slow, for tests. */
  readonly emulated?: boolean;
}

export type { WebGPUOptions };

/**
 * Objects made by the npm package's `create()`. They must never be collected: Dawn aborts the process if one goes
 * while its adapters or devices are in use.
 */
const kept = new Map<string, GPU>();

/** What Node has of the backend: all that browsers have, measurements, and steps that settle where that gains something. */
export const node: Parts = withRanges({
  ...whole,
  kernels: new Map([...whole.kernels, ['machine', machine], ['chain', chain]]),
  join: chains,
  steps: services => (services.device.software ? new Steps(services) : new SettlingSteps(services)),
  timer: device => new PassTimer(device),
  asleep,
});

/** Timestamps in steps of 65 us are of no use to measurements. */
const PLAIN = ['disable-dawn-features=timestamp_quantization'];
/** Dawn holds subgroup matrices back as experimental, and f16 on NVIDIA's drivers. */
const WITH_MATRICES = [...PLAIN, 'enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia'];

/**
 * The runtime's own `navigator.gpu` where it has one (Deno, a test in a browser), else Dawn's, made with `flags`.
 * Throws NoAdapterError if there is neither.
 */
export async function findGpu(flags: readonly string[] = PLAIN): Promise<GPU> {
  const own = typeof navigator === 'undefined' ? undefined : navigator.gpu;
  if (own) return own;
  const key = flags.join();
  const known = kept.get(key);
  if (known) return known;
  try {
    const dawn = await import('webgpu');
    const made = dawn.create([...flags]);
    kept.set(key, made);
    return made;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new NoAdapterError(
      `this runtime has no navigator.gpu, and the npm package 'webgpu' cannot be used: ${why}`,
      { cause },
    );
  }
}

/**
 * Opens a WebGPU device, with the tilings that tuning found for it. Throws NoAdapterError with the reason,
 * DeviceLimitError where it lacks the precision, DataError for a damaged file of tilings.
 */
export async function createWebGPU(options: DawnOptions = {}): Promise<Backend> {
  const backend = await openDevice(options);
  const { readTunings } = await import('./tunings.js');
  try {
    for (const [key, tiling] of readTunings(backend.device)) backend.tuning.tiles.set(key, tiling);
  } catch (error) {
    backend.dispose();
    throw error;
  }
  return backend;
}

async function openDevice(options: DawnOptions): Promise<Backend & Tunable> {
  const { precision = 'highest', emulated } = options;
  const open = async (): Promise<Backend & Tunable> => {
    if (precision === 'highest') return createOn(await findGpu(), options, node);
    const { tierOf } = await import('./matrices.js');
    const gpu = await findGpu(emulated ? PLAIN : WITH_MATRICES);
    return createOn(gpu, options, { ...node, tierOf: adapter => tierOf(adapter, precision, emulated) });
  };
  const backend = await open();
  const { device } = backend;
  device.largest = Math.floor(device.limits.maxBufferSize / 4) * 4;
  return backend;
}
