/** Layers `{ params, init, outShape, apply }` and losses. */
export { type AttentionOptions, attention, type TransformerOptions, transformer } from './attention.js';
export { dropout, embedding } from './basic.js';
export { avgPool, conv2d, flatten, maxPool } from './conv.js';
export { dense, type WeightOptions } from './dense.js';
export { fourierFeatures } from './fourier.js';
export {
  type ApplyOptions,
  defineLayer,
  type Fan,
  type FanMode,
  initParams,
  type Layer,
  LayerError,
  lambda,
  ParamSpec,
} from './layer.js';
export { accuracy, crossEntropy, klNormal, type LossOptions, mse } from './loss.js';
export { type BatchNormOptions, batchNorm, layerNorm, meanByTask } from './norm.js';
export { corrected, type LayerLike, residual, serial } from './serial.js';
