/** Learning from tasks, and systems of the literature made of it. */
export {
  accuracyOn,
  type ContinualLearner,
  type ContinualOptions,
  type ContinualState,
  type ContinualTask,
  type ContinualTraining,
  continualHypernet,
  initialContinualState,
  separateNetworks,
  trainContinual,
} from './continual.js';
export {
  type HyperTransformerOptions,
  type HyperTransformerParams,
  hyperTransformer,
} from './hypertransformer.js';
export * from './learners.js';
export {
  architectureSearch,
  type GeneratedNetworks,
  lossTable,
  type MetaNetworks,
  type MetaNetworksOptions,
  type MetaNetworksParams,
  metaNetworks,
} from './metanetworks.js';
