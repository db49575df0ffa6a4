import { ArgumentError } from '../core/errors.js';
import { scope, type Tensor } from '../core/tensor.js';
import type { Hypernet, HypernetParams } from '../hyper/index.js';
import {
  add,
  broadcastTo,
  div,
  eq,
  exp,
  expand,
  full,
  matmul,
  mul,
  reshape,
  square,
  sub,
  sum,
  tensor,
  transpose,
  zeros,
} from '../ops/index.js';
import type { Learner } from './learner.js';

/** Parameters of `ridgeLearner`: the generator, and the logarithm of the ridge. */
export interface RidgeParams {
  readonly hyper: HypernetParams;
  readonly logRidge: Tensor;
}

/**
 * A hypernetwork whose code for a task is the ridge regression on its support set, found in closed form and
 * differentiated through, so that generator and ridge are learned: Bertinetto, Henriques, Torr, Vedaldi,
 * "Meta-learning with differentiable closed-form solvers", ICLR 2019, in the space of codes. The network's outputs must
 * be linear in the code: a generator without trunk or base (codes are given as they are, as by `description`), and a
 * target that is linear in the weights it makes. As many steps of conjugate gradients as a code has numbers solve it.
 *
 * `init` throws ArgumentError for a generator with a base.
 */
export const ridgeLearner = (hyper: Hypernet<Tensor>): Learner<RidgeParams> => {
  const E = hyper.codeSize;
  /** What each number of the code adds to each output: rows `[T, n, ...]` become `[T, n * outputs, E]`. */
  const features = (phi: HypernetParams, x: Tensor): Tensor => {
    const [T, n, ...inShape] = x.shape;
    const index = tensor(Float32Array.from({ length: E }, (_, e) => e));
    const units = eq(expand(index, 0), expand(index, 1));
    const rows = broadcastTo(reshape(x, [1, T * n, ...inShape]), [E, T * n, ...inShape]);
    const out = hyper.target.apply(hyper.generate(phi, hyper.encode(phi, units)), rows);
    return reshape(transpose(reshape(out, [E, out.size / E])), [T, out.size / E / T, E]);
  };
  return {
    init: key =>
      scope(() => {
        const phi = hyper.init(key);
        if (phi.head.base) throw new ArgumentError('ridgeLearner: the generator must have no base');
        return { hyper: phi, logRidge: full([], -4) };
      }),
    predict({ hyper: phi, logRidge }, support, x, outSize) {
      const F = features(phi, support.x);
      const [T, rows] = F.shape;
      const gram = (c: Tensor) => add(div(matmul(transpose(F), matmul(F, c)), rows), mul(c, exp(logRidge)));
      const dot = (a: Tensor, b: Tensor) => sum(mul(a, b), 1, { keepDims: true });
      let code = zeros([T, E, 1]);
      let rest = div(matmul(transpose(F), reshape(support.y, [T, rows, 1])), rows);
      let direction = rest;
      for (let step = 0; step < E; step++) {
        const turned = gram(direction);
        const length = sum(square(rest), 1, { keepDims: true });
        // A task that is solved has nothing left to divide by.
        const rate = div(length, add(dot(direction, turned), 1e-20));
        code = add(code, mul(direction, rate));
        rest = sub(rest, mul(turned, rate));
        direction = add(rest, mul(direction, div(dot(rest, rest), add(length, 1e-20))));
      }
      return reshape(matmul(features(phi, x), code), [T, x.shape[1], outSize]);
    },
  };
};
