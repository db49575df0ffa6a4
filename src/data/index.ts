/** Tasks and data sets, from bytes in memory; what reads files is in `weightloom/node`. */
export { type EpisodeSource, episodes } from './episodes.js';
export { type GpFamily, type GpOptions, type GpPosterior, gpOracle, gpTasks } from './gp.js';
export { type LinearFamily, type LinearOptions, linearOracle, linearTasks } from './linear.js';
export { type LabelledImages, permutedMnist, readMnist, splitMnist, takeImages } from './mnist.js';
export { twoModes } from './modes.js';
export {
  Omniglot,
  type OmniglotSplit,
  omniglotClasses,
  omniglotEpisodes,
  withinAlphabets,
  writeDrawing,
} from './omniglot.js';
export {
  hausdorffErrors,
  modifiedHausdorff,
  type OneShotRun,
  oneShotBatch,
  readOneShotRuns,
} from './one-shot.js';
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
