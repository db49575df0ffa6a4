/**
 * weightloom's public names in browsers: those of Node, with backends that need neither files nor an addon. Data sets of
 * pictures (`weightloom/data`), reports (`weightloom/report`), cells to search and
 * networks that differ from task to task (`weightloom/nn`), tasks in sequence, HyperTransformer and MetaNetworks
 * (`weightloom/meta`) are loaded by those who want them.
 */
export { init, open } from './backends/browser.js';
export type { BackendName, InitOptions } from './backends/choose.js';
export * from './common.js';
export * as data from './data/tasks.js';
export * as meta from './meta/learners.js';
export * as nn from './nn/layers.js';
