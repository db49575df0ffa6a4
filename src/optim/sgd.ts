import type { Tensor } from '../core/tensor.js';
import { add, mul } from '../ops/index.js';
import { descentAt, type LearningRate } from './schedule.js';
import { counter, mapGrads, type Transform, transform, zerosLike } from './transform.js';

export interface SgdOptions {
  /** Weight of the old velocity; 0 keeps none. Default 0. */
  readonly momentum?: number;
  /** Looks ahead along the velocity (Nesterov 1983, in the form of Sutskever et al. 2013). Default false. */
  readonly nesterov?: boolean;
}

export interface SgdState {
  /** Updates made. */
  readonly step: Tensor;
  /** A tree like the parameters; missing without momentum. */
  readonly velocity?: unknown;
}

/**
 * Stochastic gradient descent. With momentum: v <- momentum v + g, and the update is -rate v, or with `nesterov`
 * -rate (g + momentum v).
 */
export function sgd(
  learningRate: LearningRate,
  { momentum = 0, nesterov = false }: SgdOptions = {},
): Transform<SgdState> {
  return transform(
    params =>
      momentum === 0 ? { step: counter(params) } : { step: counter(params), velocity: zerosLike(params) },
    (grads, state) => {
      const rate = descentAt(learningRate, state.step);
      const step = add(state.step, 1);
      if (momentum === 0) return [mapGrads(g => mul(g, rate), grads), { step }];
      const velocity = mapGrads((g, v) => add(mul(v, momentum), g), grads, state.velocity);
      const direction = nesterov ? mapGrads((g, v) => add(g, mul(v, momentum)), grads, velocity) : velocity;
      return [mapGrads(d => mul(d, rate), direction), { step, velocity }];
    },
  );
}
