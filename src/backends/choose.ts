/** Which machine runs the kernels: opens a backend and puts it in use. The same wherever it runs. */
import type { Backend } from '../core/backend.js';
import { ArgumentError, NativeLoadError, NoAdapterError } from '../core/errors.js';
import { use } from '../core/tensor.js';
import { createRef, type RefOptions } from './ref.js';

export type BackendName = 'auto' | 'ref' | 'cpu' | 'webgpu';

export interface InitOptions extends RefOptions {
  /** 'auto' (default, or WEIGHTLOOM_BACKEND): a real GPU, else the native CPU kernels, else TypeScript. */
  readonly backend?: BackendName;
  /** Threads of the cpu backend; the machine's cores unless given (or WEIGHTLOOM_THREADS). */
  readonly threads?: number;
}

/** What differs between Node and browsers. Openers reject with the reason a backend cannot be had. */
export interface Runtime {
  readonly cpu: (options: InitOptions) => Promise<Backend>;
  readonly webgpu: () => Promise<Backend>;
  /** False where a real GPU is out of the question, so that `auto` need not wake a driver to find that out. */
  readonly mayHaveGpu: () => boolean;
}

/** Opens one backend without putting it in use; see `open` in init.ts. */
export async function openOn(
  runtime: Runtime,
  name: Exclude<BackendName, 'auto'>,
  options: InitOptions = {},
): Promise<Backend> {
  switch (name) {
    case 'ref':
      return createRef(options);
    case 'cpu':
      return runtime.cpu(options);
    case 'webgpu':
      return runtime.webgpu();
    default:
      throw new ArgumentError(`backend '${name}' is none of auto, ref, cpu, webgpu`);
  }
}

/** Opens a backend and puts it in use; see `init` in init.ts. */
export async function initOn(runtime: Runtime, options: InitOptions = {}): Promise<Backend> {
  const wanted = options.backend ?? (globalThis.process?.env?.WEIGHTLOOM_BACKEND || 'auto');
  const name = wanted as BackendName;
  const backend = name === 'auto' ? await best(runtime, options) : await openOn(runtime, name, options);
  use(backend);
  return backend;
}

/** The fastest backend here. A software WebGPU adapter is never chosen. */
async function best(runtime: Runtime, options: InitOptions): Promise<Backend> {
  const gpu = runtime.mayHaveGpu() ? await orNull(runtime.webgpu) : null;
  if (gpu && !gpu.describe().software) return gpu;
  gpu?.dispose();
  return (await orNull(() => runtime.cpu(options))) ?? createRef(options);
}

async function orNull(make: () => Promise<Backend>): Promise<Backend | null> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof NativeLoadError || error instanceof NoAdapterError) return null;
    throw error;
  }
}
