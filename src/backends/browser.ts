/** The backends of browsers: `init` and `open` as in Node, but nothing behind them needs a file or an addon. */
import type { Backend } from '../core/backend.js';
import { NativeLoadError, NoAdapterError } from '../core/errors.js';
import { type BackendName, type InitOptions, initOn, openOn, type Runtime } from './choose.js';
import { createOn, type Parts } from './webgpu/backend.js';
import { whole } from './webgpu/training.js';

/** A browser with these parts of the WebGPU backend. */
export const browserWith = (parts: Parts): Runtime => ({
  cpu: async () => {
    throw new NativeLoadError('a browser runs no native kernels; expected webgpu or ref');
  },
  webgpu: async ({ precision }) => {
    const { gpu } = navigator;
    if (!gpu)
      throw new NoAdapterError(
        'there is no navigator.gpu: this browser has no WebGPU, or the page came from neither https nor localhost',
      );
    return createOn(gpu, { precision }, parts);
  },
  mayHaveGpu: () => true,
});

/** As `open` in Node; 'cpu' rejects with NativeLoadError. */
export const open = (name: Exclude<BackendName, 'auto'>, options?: InitOptions): Promise<Backend> =>
  openOn(browserWith(whole), name, options);

/** As `init` in Node: 'auto' is a real GPU, else TypeScript. */
export const init = (options?: InitOptions): Promise<Backend> => initOn(browserWith(whole), options);
