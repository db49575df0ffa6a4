/** Which machine runs the kernels: opens a backend and puts it in use. */
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

const env = (name: string): string | undefined => globalThis.process?.env?.[name];

/**
 * Opens one backend without putting it in use. Throws NativeLoadError, NoAdapterError with the reason it cannot be had,
 * ArgumentError for a name that is none.
 */
export async function open(name: Exclude<BackendName, 'auto'>, options: InitOptions = {}): Promise<Backend> {
  switch (name) {
    case 'ref':
      return createRef(options);
    case 'cpu':
      return (await import('./cpu.js')).createCpu(options);
    case 'webgpu':
      return (await import('./webgpu/index.js')).createWebGPU();
    default:
      throw new ArgumentError(`backend '${name}' is none of auto, ref, cpu, webgpu`);
  }
}

/** Opens a backend and makes it the one new tensors live on. */
export async function init(options: InitOptions = {}): Promise<Backend> {
  const name = options.backend ?? ((env('WEIGHTLOOM_BACKEND') || 'auto') as BackendName);
  const backend = name === 'auto' ? await best(options) : await open(name, options);
  use(backend);
  return backend;
}

const GPU_FILES = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg'];
/** False where a real GPU is out of the question, so that `auto` need not wake a driver to find that out. */
function mayHaveGpu(): boolean {
  const node = globalThis.process;
  if (node?.platform !== 'linux') return true;
  const files = node.getBuiltinModule?.('fs');
  return !files || GPU_FILES.some(file => files.existsSync(file));
}

/** The fastest backend here. A software WebGPU adapter is never chosen. */
async function best(options: InitOptions): Promise<Backend> {
  const gpu = mayHaveGpu() ? await orNull(() => open('webgpu', options)) : null;
  if (gpu && !gpu.describe().software) return gpu;
  gpu?.dispose();
  return (await orNull(() => open('cpu', options))) ?? open('ref', options);
}

async function orNull(make: () => Promise<Backend>): Promise<Backend | null> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof NativeLoadError || error instanceof NoAdapterError) return null;
    throw error;
  }
}
