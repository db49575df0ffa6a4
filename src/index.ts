/** weightloom's public names. */
export { type BackendName, type InitOptions, init, open } from './backends/init.js';
export * from './common.js';
export * as data from './data/index.js';
export * as meta from './meta/index.js';
export * as nn from './nn/index.js';
export * from './report.js';
