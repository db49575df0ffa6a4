import { ArgumentError } from '../core/errors.js';
import { scope, type Tensor } from '../core/tensor.js';
import { concat, slice } from '../ops/index.js';
import { type Episodes, type Examples, taskLosses } from './episodes.js';
import type { Learner } from './learner.js';

/** Mean query losses of tasks that were shown their own support set, and that of another task. */
export interface SupportUse {
  readonly own: number;
  readonly others: number;
}

/**
 * Whether a learner uses the support set: the loss it has with the tasks' own ones against that with each task's
 * neighbour's. Equal losses mean that the input is ignored. For two tasks or more (ArgumentError).
 */
export async function supportUse<P>(
  learner: Learner<P>,
  params: P,
  { support, query }: Episodes,
  outSize: number,
): Promise<SupportUse> {
  const tasks = query.x.shape[0];
  if (tasks < 2) throw new ArgumentError(`supportUse: needs two tasks or more, got ${tasks}`);
  const next = (x: Tensor) => concat([slice(x, 0, 1), slice(x, 0, 0, 1)], 0);
  const lossWith = async (shown: Examples) => {
    using losses = scope(() => taskLosses(learner.predict(params, shown, query.x, outSize), query.y));
    return Float64Array.from(await losses.data()).reduce((sum, loss) => sum + loss / tasks, 0);
  };
  return {
    own: await lossWith(support),
    others: await lossWith({ x: next(support.x), y: next(support.y) }),
  };
}
