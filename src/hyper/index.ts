/** Hypernetworks: condition, trunk, head. */
export { type AttentionHeadOptions, attentionHead } from './attention.js';
export {
  type AttentiveEncoder,
  attentionEncoder,
  type Condition,
  concatConditions,
  description,
  type Encoder,
  gateConditions,
  noise,
  type Support,
  setEncoder,
  type TargetShapes,
  taskId,
} from './condition.js';
export { f16, halve } from './half.js';
export {
  type BasisFormat,
  type BoundHead,
  type ChunkedOptions,
  chunkedHead,
  fullHead,
  type Head,
  type HeadOptions,
  type LowRankOptions,
  lowRankHead,
} from './head.js';
export { type Hypernet, type HypernetOptions, type HypernetParams, hypernet } from './hypernet.js';
export { mixedHead, recursiveHead, trunkHead } from './levels.js';
export {
  diversityLoss,
  spreadLoss,
  type WeightStatistics,
  weightGram,
  weightNormLoss,
  weightNorms,
  weightStatistics,
} from './statistics.js';
export { type Posterior, type VariationalEncoder, variational } from './variational.js';
