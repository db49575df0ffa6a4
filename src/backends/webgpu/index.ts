/** WebGPU in Node: the backend on a device of the npm package `webgpu` (Dawn). */
import type { Backend } from '../../core/backend.js';
import { NoAdapterError } from '../../core/errors.js';
import { createOn, type WebGPUOptions } from './backend.js';

export type { WebGPUOptions };

/**
 * Objects made by the npm package's `create()`. They must never be collected: Dawn aborts the process if one goes
 * while its adapters or devices are in use.
 */
const kept: GPU[] = [];

/**
 * The runtime's own `navigator.gpu` where it has one (Deno, a test in a browser), else Dawn's.
 * Throws NoAdapterError if there is neither.
 */
export async function findGpu(): Promise<GPU> {
  const own = typeof navigator === 'undefined' ? undefined : navigator.gpu;
  if (own) return own;
  if (kept.length > 0) return kept[0];
  try {
    const dawn = await import('webgpu');
    // Timestamps in steps of 65 us are of no use to measurements.
    kept.push(dawn.create(['disable-dawn-features=timestamp_quantization']));
    return kept[0];
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.split('\n')[0] : String(cause);
    throw new NoAdapterError(
      `this runtime has no navigator.gpu, and the npm package 'webgpu' cannot be used: ${why}`,
      { cause },
    );
  }
}

/** Opens a WebGPU device. Throws NoAdapterError with the reason. */
export async function createWebGPU(options: WebGPUOptions = {}): Promise<Backend> {
  return createOn(await findGpu(), options);
}
