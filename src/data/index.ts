/** Tasks and data sets, from bytes in memory; what reads files is in `weightloom/node`. */
export { type LabelledImages, permutedMnist, readMnist, splitMnist, takeImages } from './mnist.js';
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
export * from './tasks.js';
