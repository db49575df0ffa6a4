import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import type { Layer } from '../nn/index.js';
import { sum } from '../ops/index.js';
import { type AdaptOptions, adapt, perTask } from './adapt.js';
import { taskLosses } from './episodes.js';
import type { Learner } from './learner.js';

export interface MamlOptions extends Omit<AdaptOptions, 'learningRate'> {
  /** Rate of the inner steps. */
  readonly learningRate: number;
}

/**
 * Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017): shared initial parameters of `target`, from which
 * every task takes a few gradient steps on its support set. With `firstOrder` it is FOMAML.
 */
export const maml = (target: Layer, inShape: Shape, options: MamlOptions): Learner => ({
  init: key => target.init(key, inShape),
  predict(params, { x: shown, y }, x): Tensor {
    const loss = (p: unknown) => sum(taskLosses(target.apply(p, shown), y));
    return target.apply(adapt(loss, perTask(params, shown.shape[0]), options), x);
  },
});
