import { ArgumentError } from '../core/errors.js';
import { differentiable, grad, stopGradient } from '../core/grad.js';
import { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { broadcastTo, mul, sub, type Value } from '../ops/index.js';

export interface AdaptOptions {
  /** Gradient steps; 0 returns the parameters themselves. */
  readonly steps: number;
  /** One rate, or a tree of rates like the parameters (learned ones make it Meta-SGD, Li et al. 2017). */
  readonly learningRate: Value | object;
  /** Takes the inner gradient for a constant (FOMAML, Finn et al. 2017, section 5.2): no second derivatives. */
  readonly firstOrder?: boolean;
}

/**
 * The inner loop of Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
 * 2017: `steps` gradient steps on `loss`, starting from `params`. The result depends on `params` differentiably.
 *
 * All tasks adapt in one call: give every task its own parameters (`perTask`) and return the sum of the tasks' losses,
 * whose gradient is each task's own. To adapt a part only (ANIL, Raghu et al. 2020), give that part as `params` and
 * close over the rest.
 *
 * @throws ArgumentError if `steps` is not a whole number >= 0; GraphError for generated weights, or if the loss does
 *   not depend on a parameter.
 */
export function adapt<P>(loss: (params: P) => Tensor, params: P, options: AdaptOptions): P {
  const { steps, learningRate, firstOrder = false } = options;
  if (!(Number.isSafeInteger(steps) && steps >= 0))
    throw new ArgumentError(`adapt: steps must be a whole number >= 0, got ${steps}`);
  const one = typeof learningRate === 'number' || learningRate instanceof Tensor;
  const rates = one ? tree.map(() => learningRate, params) : learningRate;
  const gradient = grad(loss);
  let current = params;
  for (let step = 0; step < steps; step++) {
    const grads = gradient(firstOrder ? stopGradient(current) : current);
    current = tree.map(
      (p: Tensor, g: Tensor | null, rate: Value) => (g === null ? p : sub(p, mul(g, rate))),
      current,
      grads,
      rates,
    );
  }
  return current;
}

/** Every f32 leaf `[...]` repeated for each task, `[tasks, ...]`: a view, whose gradient sums over tasks. */
export const perTask = <P>(params: P, tasks: number): P =>
  tree.map(p => (differentiable(p) ? broadcastTo(p, [tasks, ...p.shape]) : p), params);
