import { ArgumentError } from '../core/errors.js';
import { stopGradient, valueAndGrad } from '../core/grad.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import {
  customVjp,
  FastGenerated,
  type FastStep,
  full,
  Generated,
  mul,
  reshape,
  sub,
  sum,
  type Value,
  type Weight,
} from '../ops/index.js';

export interface InnerSgdOptions {
  /** T: tasks that adapt, each on its own rows. */
  readonly tasks: number;
  /** Gradient steps; 0 adapts nothing. */
  readonly steps: number;
  readonly learningRate: Value;
  /** Takes the inner gradient for a constant: no second derivatives. */
  readonly firstOrder?: boolean;
  /** Which leaves are applied by `linear` alone and so adapt implicitly; matrices named `w` unless given. */
  readonly implicit?: (path: string, leaf: Weight) => boolean;
}

const isMatrix = (path: string, leaf: Weight): boolean =>
  /(^|\.)w$/.test(path) &&
  (leaf instanceof Generated ? leaf.weightShape.length === 2 : leaf.rank === 2 || leaf.rank === 3);

/**
 * Plain gradient descent like `adapt`, without a weight per task: after K steps on S rows a linear layer's weight is its
 * start minus a product of rank K·S, of what the layer read and the gradients of what it yielded (`FastGenerated`).
 * `loss(params)` is the sum of the tasks' losses, its rows `[T,S,i]`. Implicit leaves may be one weight for all tasks
 * `[i,o]`, one per task, or generated; the others are explicit, with a leading task axis (see `perTask`). Equal to the
 * explicit loop up to rounding, and differentiable to any order.
 *
 * @throws ArgumentError if `steps` is not a whole number >= 0; ShapeError where a layer's rows have no leading task axis.
 */
export function innerSgd<P>(loss: (params: P) => Tensor, params: P, options: InnerSgdOptions): P {
  const { tasks, steps, learningRate, firstOrder = false, implicit = isMatrix } = options;
  if (!(Number.isSafeInteger(steps) && steps >= 0))
    throw new ArgumentError(`innerSgd: steps must be a whole number >= 0, got ${steps}`);
  const leaves = tree.entries<Weight>(params);
  const hidden = leaves.map(([path, leaf]) => implicit(path, leaf));
  const taken = leaves.map(() => [] as FastStep[]);
  let explicit = leaves.map(([, leaf]) => leaf).filter((_, k) => !hidden[k]) as Tensor[];
  const stopped = <X>(x: X): X => (firstOrder ? stopGradient(x) : x);
  const fastOf = (leaf: Weight, k: number, watch: FastGenerated['watch']) => {
    const fast = new FastGenerated(leaf, tasks, [...taken[k]], watch);
    return watch ? stopped(fast) : fast;
  };
  /** The parameters after the steps so far; `watch` sees what each implicit layer reads and yields. */
  const current = (
    given: readonly Tensor[],
    watch: ((k: number) => (x: Tensor, y: Tensor) => Tensor) | null,
  ): P => {
    let next = 0;
    return tree.rebuild(
      params,
      leaves.map(([, leaf], k) => (hidden[k] ? fastOf(leaf, k, watch?.(k) ?? null) : given[next++])),
    ) as P;
  };

  for (let step = 0; step < steps; step++) {
    const seen: [number, FastStep][] = [];
    const gradient = valueAndGrad(
      ({ probe, given }: { probe: Tensor; given: Tensor[] }) => {
        // The derivative with respect to what is added to a layer's output is delta; adding nothing, it is only looked at.
        const watch = (k: number) => (x: Tensor, y: Tensor) =>
          customVjp(
            (out: Tensor, _probe: Tensor) => out,
            delta => {
              seen.push([k, { x, delta, rate: learningRate }]);
              return [delta, reshape(sum(delta), [1])];
            },
          )(y, probe);
        // As an auxiliary result, so that it outlives the scope of the gradient.
        return [loss(current(given, watch)), seen] as const;
      },
      { unused: 'zeros' },
    );
    const { given } = gradient({ probe: full([1], 0), given: stopped(explicit) }).grads;
    explicit = explicit.map((x, k) => sub(x, mul(given[k], learningRate)));
    for (const [k, fast] of seen) taken[k].push(fast);
  }
  return current(explicit, null);
}
