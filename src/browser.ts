/** weightloom's public names in browsers: those of Node, with backends that need neither files nor an addon. */
export { init, open } from './backends/browser.js';
export type { BackendName, InitOptions } from './backends/choose.js';
export * from './common.js';
