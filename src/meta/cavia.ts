import { ArgumentError } from '../core/errors.js';
import { type Shape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import type { Layer } from '../nn/index.js';
import { broadcastTo, concat, expand, sum, zeros } from '../ops/index.js';
import { adapt } from './adapt.js';
import { taskLosses } from './episodes.js';
import type { Learner } from './learner.js';
import type { MamlOptions } from './maml.js';

/** Inner steps, and how many numbers of context a task has. */
export interface CaviaOptions extends MamlOptions {
  readonly contextSize: number;
}

/**
 * CAVIA (Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson, ICML 2019): the network's parameters are shared by all tasks,
 * and a task adapts `contextSize` numbers only, which stand beside every input row and begin at 0.
 *
 * @throws ArgumentError if rows of the input are not vectors, or `contextSize` is not a whole number >= 1.
 */
export function cavia(
  target: Layer,
  inShape: Shape,
  { contextSize, ...options }: CaviaOptions,
): Learner<unknown> {
  if (inShape.length !== 1)
    throw new ArgumentError(
      `cavia: a context stands beside vectors; expected inShape of one axis, got ${show(inShape)}`,
    );
  if (!(Number.isSafeInteger(contextSize) && contextSize >= 1))
    throw new ArgumentError(`cavia: contextSize must be a whole number >= 1, got ${contextSize}`);
  const apply = (params: unknown, x: Tensor, context: Tensor) => {
    const [tasks, rows] = x.shape;
    const beside = broadcastTo(expand(context, 1), [tasks, rows, contextSize]);
    return target.apply(params, concat([x, beside], -1));
  };
  return {
    init: key => target.init(key, [inShape[0] + contextSize]),
    predict(params, { x: shown, y }, x) {
      const loss = (context: Tensor) => sum(taskLosses(apply(params, shown, context), y));
      return apply(params, x, adapt(loss, zeros([shown.shape[0], contextSize]), options));
    },
  };
}
