/** The backends of Node. */
import type { Backend } from '../core/backend.js';
import { type BackendName, type InitOptions, initOn, openOn, type Runtime } from './choose.js';

export type { BackendName, InitOptions };

const GPU_FILES = ['/dev/dri', '/dev/nvidiactl', '/dev/dxg'];

/** With what was measured on its device; one whose file is damaged is given back. */
async function rated(backend: Backend): Promise<Backend> {
  try {
    return (await import('./stored.js')).withRates(backend);
  } catch (error) {
    backend.dispose();
    throw error;
  }
}

const node: Runtime = {
  cpu: async options => rated(await (await import('./cpu.js')).createCpu(options)),
  webgpu: async options => rated(await (await import('./webgpu/index.js')).createWebGPU(options)),
  mayHaveGpu: () => {
    const process = globalThis.process;
    if (process?.platform !== 'linux') return true;
    const files = process.getBuiltinModule?.('fs');
    return !files || GPU_FILES.some(file => files.existsSync(file));
  },
};

/**
 * Opens one backend without putting it in use. Throws NativeLoadError, NoAdapterError with the reason it cannot be had,
 * DeviceLimitError where it lacks the precision, ArgumentError for a name that is none.
 */
export const open = (name: Exclude<BackendName, 'auto'>, options?: InitOptions): Promise<Backend> =>
  openOn(node, name, options);

/** Opens a backend and makes it the one new tensors live on. Throws as `open` does. */
export const init = (options?: InitOptions): Promise<Backend> => initOn(node, options);
