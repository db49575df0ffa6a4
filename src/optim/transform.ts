/**
 * Gradient transforms: optimisers as pairs of pure functions over trees, composed by `chain` (the shape of Optax,
 * DeepMind 2020). A transform turns gradients into updates that are added to the parameters; its state is a tree of
 * tensors, so it is saved, donated and compiled like the parameters.
 */
import { differentiable } from '../core/grad.js';
import { scope, type Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { add, full } from '../ops/index.js';

/** A pair of pure functions over trees shaped like the parameters. */
export interface Transform<S = unknown> {
  /** The state before the first update. */
  init(params: unknown): S;
  /**
   * `grads` is a tree like `params`, null for leaves that have no gradient (integers, keys); so are the updates.
   * Returns the updates and the next state. A scope of its own: it gives back what it makes on the way.
   */
  update<P>(grads: P, state: S, params: P): [updates: P, state: S];
}

/** Builds a transform from functions that need not care for scopes. */
export const transform = <S>(init: Transform<S>['init'], update: Transform<S>['update']): Transform<S> => ({
  init,
  update: (grads, state, params) => scope(() => update(grads, state, params)),
});

/** `tree.map` over the leaves that have a gradient; the others give null. `first` is the tree that has the nulls. */
export const mapGrads = <P>(f: (...leaves: Tensor[]) => Tensor, first: P, ...rest: unknown[]): P =>
  tree.map((...leaves) => (leaves[0] === null ? null : f(...leaves)), first, ...rest);

/** Transforms one after the other: each sees the updates of the one before. The state is the list of theirs. */
export const chain = (...transforms: readonly Transform<any>[]): Transform<unknown[]> =>
  transform(
    params => transforms.map(t => t.init(params)),
    (grads, state, params) => {
      let updates = grads;
      const next = transforms.map((t, i) => {
        const [changed, after] = t.update(updates, state[i], params);
        updates = changed;
        return after;
      });
      return [updates, next];
    },
  );

/** params + updates; leaves without an update are returned as they are. */
export const applyUpdates = <P>(params: P, updates: P): P =>
  tree.map((p: Tensor, u: Tensor | null) => (u === null ? p : add(p, u)), params, updates);

/** Zeros like the parameters, null for leaves that get no gradient. */
export const zerosLike = (params: unknown): unknown =>
  tree.map(p => (differentiable(p) ? full(p.shape, 0, p.backend) : null), params);

/** The counter of updates before the first: an f32 scalar where the parameters live, exact up to 2^24. */
export const counter = (params: unknown): Tensor => full([], 0, tree.leaves<Tensor>(params)[0]?.backend);
