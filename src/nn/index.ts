/** Layers and losses, and networks that differ from task to task. */
export * from './layers.js';
export { type VariantParams, type Variants, variants } from './variants.js';
