/** Optimisers and what they are composed of. */

export { type AdamOptions, type AdamState, type AdamwOptions, adam, adamw } from './adam.js';
export { ascent } from './ascent.js';
export { clipByGlobalNorm, globalNorm } from './clip.js';
export { byPart } from './parts.js';
export {
  constantSchedule,
  cosineSchedule,
  type LearningRate,
  linearSchedule,
  type Schedule,
  warmupSchedule,
} from './schedule.js';
export { type SgdOptions, type SgdState, sgd } from './sgd.js';
export { applyUpdates, chain, type Transform } from './transform.js';
