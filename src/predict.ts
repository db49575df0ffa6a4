/**
 * `weightloom/predict`: `init` and `open` for pages that only predict. Their WebGPU has no kernels that derivatives alone
 * need, and compiles no steps: half the bytes to load. In Node these are the whole backends.
 */
import { browserWith } from './backends/browser.js';
import { type BackendName, type InitOptions, initOn, openOn } from './backends/choose.js';
import { kernels } from './backends/webgpu/launch.js';
import { shaders } from './backends/webgpu/shaders.gen.js';
import type { Backend } from './core/backend.js';

const predicting = () => browserWith({ kernels, shaders, steps: null, timer: null });

/** As `open` of `weightloom`. */
export const open = (name: Exclude<BackendName, 'auto'>, options?: InitOptions): Promise<Backend> =>
  openOn(predicting(), name, options);

/** As `init` of `weightloom`. */
export const init = (options?: InitOptions): Promise<Backend> => initOn(predicting(), options);
