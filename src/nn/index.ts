/** Layers and losses, and networks that differ from task to task. */
export { type Architecture, architectureEntropy, CELL_OPS, type Cell, type CellOps, cell } from './cell.js';
export * from './layers.js';
export { type VariantParams, type Variants, variants } from './variants.js';
