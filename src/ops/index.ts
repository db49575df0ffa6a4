/** Every op, one line per file. */
export * from './cast.js';
export { ChunkedGenerated } from './chunked.js';
export * from './concat.js';
export * from './conv2d.js';
export { type ConvolveOptions, convolve } from './convolve.js';
export * from './create.js';
export * from './crossEntropy.js';
export * from './custom.js';
export * from './einsum.js';
export * from './elementwise.js';
export { FastGenerated, type FastStep } from './fast.js';
export * from './gather.js';
export { type GenerateOperands, type GenerateSlot, generateApply, generateGradients } from './generate.js';
export {
  FullGenerated,
  Generated,
  type Materialised,
  materialise,
  projectFull,
  type Weight,
} from './generated.js';
export { HalfGenerated, narrow, widen } from './half.js';
export {
  type LinearOptions,
  linear,
  type Preference,
  planOf,
  plansFor,
  type Rows,
  vectorFor,
} from './linear.js';
export { LowRankGenerated } from './lowRank.js';
export * from './matmul.js';
export * from './norm.js';
export * from './pool.js';
export * from './ragged.js';
export * from './random.js';
export * from './reduce.js';
export * from './softmax.js';
export * from './unpack.js';
export * from './views.js';
