/** Learning from tasks: episodes, inner loops, learners, training and evaluation. */
export { type AdaptOptions, adapt, perTask } from './adapt.js';
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
export { initialState, type Training, type TrainingState, type TrainOptions, train } from './trainer.js';
