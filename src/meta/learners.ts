/** Learning from tasks: episodes, inner loops, learners, training and evaluation. */
export { type AdaptOptions, adapt, perTask } from './adapt.js';
export { type CaviaOptions, cavia } from './cavia.js';
export { packState, unpackParams, unpackState } from './checkpoint.js';
export { type ClassifierParams, classMeans, generatedClassifier, prototypes } from './classes.js';
export { type SupportUse, supportUse } from './diagnose.js';
export { conv4, imageNorm } from './embedding.js';
export {
  drawEpisodes,
  type Episodes,
  type Examples,
  type Metric,
  metricOf,
  taskLosses,
  taskScores,
  toEpisodes,
} from './episodes.js';
export { type EvaluateOptions, evaluate, type Summary, summarise } from './evaluate.js';
export { type GaussianLearner, gaussianLearner, gaussianLoss, type Moments } from './gaussian.js';
export { fineTuned, hypernetLearner, latentLearner } from './hypernet.js';
export { type InnerSgdOptions, innerSgd } from './innerSgd.js';
export { keyOf, type Learner, queryScores, trainingLoss } from './learner.js';
export { anil, type MamlOptions, maml, metaSgd, pretrained, reptile } from './maml.js';
export { type NoiseLearner, type NoiseOptions, noiseLearner } from './noise.js';
export { type RidgeParams, ridgeLearner } from './ridge.js';
export { type CurveOptions, type CurvePoint, paired, type Start, startCurve } from './starts.js';
export { initialState, type Training, type TrainingState, type TrainOptions, train } from './trainer.js';
export { trainValidated, type ValidatedBest, type ValidatedState, type Validation } from './validate.js';
