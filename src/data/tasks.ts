/** Tasks made of numbers, and what draws batches of any. */
export { type EpisodeSource, episodes } from './episodes.js';
export { type GpFamily, type GpOptions, type GpPosterior, gpOracle, gpTasks } from './gp.js';
export { type LinearFamily, type LinearOptions, linearOracle, linearTasks } from './linear.js';
export { twoModes } from './modes.js';
export { sinusoid } from './sinusoid.js';
export { Stream } from './stream.js';
export {
  asTaskFamily,
  type BatchRequest,
  type ClassificationFamily,
  drawBatch,
  type RegressionFamily,
  type Split,
  type TaskBatch,
  type TaskFamily,
} from './task.js';
