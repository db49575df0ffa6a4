/** Learners whose tasks take gradient steps on their support sets: MAML and its kin. */
import { stopGradient } from '../core/grad.js';
import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import type { Layer } from '../nn/index.js';
import { add, concat, div, full, mean, square, sub, sum } from '../ops/index.js';
import { type AdaptOptions, adapt, perTask } from './adapt.js';
import { type Examples, taskLosses } from './episodes.js';
import type { Learner } from './learner.js';

/** How many steps, how far, and whether the outer gradient goes through them. */
export interface MamlOptions extends Omit<AdaptOptions, 'learningRate'> {
  /** Rate of the inner steps. */
  readonly learningRate: number;
}

/** The sum over tasks of a network's mean losses, as a function of its parameters: what the inner steps descend. */
const lossOf =
  (target: Layer, { x, y }: Examples) =>
  (params: unknown): Tensor =>
    sum(taskLosses(target.apply(params, x), y));

const tasksOf = ({ x }: Examples): number => x.shape[0];

/**
 * Model-agnostic meta-learning (Finn, Abbeel, Levine, ICML 2017): shared initial parameters of `target`, from which
 * every task takes a few gradient steps on its support set. With `firstOrder` it is FOMAML.
 */
export const maml = (target: Layer, inShape: Shape, options: MamlOptions): Learner => ({
  init: key => target.init(key, inShape),
  predict: (params, support, x) =>
    target.apply(adapt(lossOf(target, support), perTask(params, tasksOf(support)), options), x),
});

/**
 * Pre-training and fine-tuning: one network learns the tasks' query rows as if they were one task, and a task then takes
 * gradient steps from it on its support set, which training knows nothing of.
 */
export const pretrained = (
  target: Layer,
  inShape: Shape,
  options: Omit<MamlOptions, 'firstOrder'>,
): Learner => ({
  ...maml(target, inShape, options),
  loss: (params, { query }) => mean(taskLosses(target.apply(params, query.x), query.y)),
});

/**
 * Meta-SGD (Li, Zhou, Chen, Li, 2017): MAML whose inner rates, one for every parameter, are learned with the start.
 * They begin at `learningRate`.
 */
export const metaSgd = (
  target: Layer,
  inShape: Shape,
  { learningRate, ...options }: MamlOptions,
): Learner<{ start: any; rates: any }> => ({
  init: key => {
    const start = target.init(key, inShape);
    return { start, rates: tree.map((p: Tensor) => full(p.shape, learningRate), start) };
  },
  predict: ({ start, rates }, support, x) => {
    const tasks = tasksOf(support);
    const how = { ...options, learningRate: perTask(rates, tasks) };
    return target.apply(adapt(lossOf(target, support), perTask(start, tasks), how), x);
  },
});

/**
 * ANIL (Raghu, Raghu, Bengio, Vinyals, ICLR 2020, "Rapid learning or feature reuse?"): only `head` adapts to a task;
 * `body`, from inputs `[T, n, ...inShape]` to features, is shared and learned by the outer gradient alone.
 */
export const anil = (
  body: Layer,
  head: Layer,
  inShape: Shape,
  options: MamlOptions,
): Learner<{ body: any; head: any }> => {
  const features = body.outShape(inShape);
  const learner = maml(head, features, options);
  return {
    init: key => ({ body: body.init(key, inShape), head: head.init(key, features) }),
    predict: (params, { x: shown, y }, x, outSize) =>
      learner.predict(
        params.head,
        { x: body.apply(params.body, shown), y },
        body.apply(params.body, x),
        outSize,
      ),
  };
};

/**
 * Reptile (Nichol, Achiam, Schulman, 2018, "On first-order meta-learning algorithms"): the start moves towards where
 * `steps` gradient steps on a task's rows, support and query alike, lead from it. Its training objective is half the
 * squared distance between the two, whose gradient is Reptile's step: no second derivative is ever built. With plain
 * gradient descent of rate e the start becomes start + e * mean(adapted - start).
 */
export const reptile = (
  target: Layer,
  inShape: Shape,
  options: Omit<MamlOptions, 'firstOrder'>,
): Learner => ({
  ...maml(target, inShape, { ...options, firstOrder: true }),
  loss(params, { support, query }) {
    const tasks = tasksOf(support);
    const rows = { x: concat([support.x, query.x], 1), y: concat([support.y, query.y], 1) };
    const from = perTask(stopGradient(params), tasks);
    const adapted = tree.leaves<Tensor>(adapt(lossOf(target, rows), from, options));
    const distances = tree
      .leaves<Tensor>(perTask(params, tasks))
      .map((start, i) => sum(square(sub(start, stopGradient(adapted[i])))));
    return div(
      distances.reduce((a, b) => add(a, b)),
      2 * tasks,
    );
  },
});
