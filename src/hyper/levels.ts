/** Heads made of heads: one for each part of the target, with a trunk of its own, or each reading the one before. */
import { ArgumentError } from '../core/errors.js';
import { sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { type LayerLike, type ParamSpec, serial } from '../nn/index.js';
import {
  concat,
  div,
  materialise,
  matmul,
  mean,
  mul,
  normal,
  relu,
  reshape,
  split,
  sqrt,
  square,
  type Weight,
} from '../ops/index.js';
import { type BoundHead, type Head, readsCode } from './head.js';

/** Which of the head's own parameters belong to which part. */
type Parts = readonly { readonly head: BoundHead; readonly indices: readonly number[] }[];

function partsOf(specs: readonly ParamSpec[], choose: (spec: ParamSpec, index: number) => Head): Parts {
  const groups = new Map<Head, number[]>();
  specs.forEach((spec, i) => {
    const head = choose(spec, i);
    groups.set(head, [...(groups.get(head) ?? []), i]);
  });
  return [...groups].map(([head, indices]) => ({ head: head(indices.map(i => specs[i])), indices }));
}

/** Weights of all parts in the order of the specs. */
const inOrder = (parts: Parts, count: number, weights: (part: number) => Weight[]): Weight[] => {
  const all = Array<Weight>(count);
  parts.forEach(({ indices }, p) => {
    weights(p).forEach((w, i) => {
      all[indices[i]] = w;
    });
  });
  return all;
};

/**
 * A head for each part of the target: `choose` names the head of every weight, and weights of one head (the same object)
 * are made by it together, from parameters of its own. All parts read the same hidden code, so heads that read more
 * than the code (chunked ones) need a trunk of their own (`trunkHead`): ArgumentError.
 *
 * One head per layer is the multi-layer hypernetwork: `mixedHead((_, i) => heads[i >> 1])`.
 */
export const mixedHead =
  (choose: (spec: ParamSpec, index: number) => Head): Head =>
  specs => {
    const parts = partsOf(specs, choose);
    for (const { head } of parts)
      if (head.trunkSize(1) !== 1)
        throw new ArgumentError(
          'mixedHead: a head that reads more than the code needs a trunk of its own: trunkHead',
        );
    return {
      ...readsCode,
      initOutput: (key, width, moment) => {
        const keys = split(key, parts.length);
        return { parts: parts.map(({ head }, p) => head.initOutput(keys[p], width, moment)) };
      },
      weights: (params: { parts: any[] }, hidden) =>
        inOrder(parts, specs.length, p => parts[p].head.weights(params.parts[p], hidden)),
    };
  };

/** A head behind a trunk of its own, a layer and an activation (relu unless given). */
export const trunkHead =
  (trunk: LayerLike, head: Head, activation: (x: Tensor) => Tensor = relu): Head =>
  specs => {
    const inner = head(specs);
    const layer = serial(trunk, activation);
    const hiddenOf = (params: any, hidden: Tensor) =>
      layer.apply(params.trunk, inner.input(params.head, hidden));
    return {
      ...readsCode,
      initOutput: (key, width, moment) => {
        const [forTrunk, forInput, forOutput, forExample] = split(key, 4);
        const inShape = [inner.trunkSize(width)];
        const [hidden] = layer.outShape(inShape);
        const before = {
          trunk: layer.init(forTrunk, inShape),
          head: inner.initInput(forInput, width, moment),
        };
        // What the inner head reads at the start, for normal codes of the given moment.
        const codes = mul(normal(forExample, [64, width]), sqrt(moment));
        const found = mean(square(hiddenOf(before, codes)));
        return { ...before, head: { ...before.head, ...inner.initOutput(forOutput, hidden, found) } };
      },
      weights: (params, hidden) => inner.weights(params.head, hiddenOf(params, hidden)),
    };
  };

/** Layers of the target, each a weight and the biases and scales that follow it. */
function levelsOf(specs: readonly ParamSpec[]): number[][] {
  const levels: number[][] = [];
  specs.forEach((spec, i) => {
    if (levels.length === 0 || spec.role === 'weight') levels.push([]);
    levels[levels.length - 1].push(i);
  });
  return levels;
}

/**
 * A recursive hypernetwork: the weights of one layer of the target are read by what makes the next layer's. Each layer
 * has a head of its own made by `head`. From the second on it reads, beside the hidden code, `summary` numbers (16 unless
 * given): a learned projection of the weights of the layer before, at the start as long as a typical code.
 */
export const recursiveHead =
  (head: Head, summary = 16): Head =>
  specs => {
    if (!(Number.isInteger(summary) && summary > 0))
      throw new ArgumentError(`recursiveHead: summary must be a size, got ${summary}`);
    const levels = levelsOf(specs).map(indices => ({
      indices,
      head: head(indices.map(i => specs[i])),
      size: indices.reduce((n, i) => n + sizeOf(specs[i].shape), 0),
    }));
    const flat = (weights: readonly Weight[]) =>
      concat(
        (materialise(weights) as Tensor[]).map(w => reshape(w, [w.shape[0], sizeOf(w.shape.slice(1))])),
        1,
      );
    const run = (params: { levels: any[] }, hidden: Tensor): Weight[][] => {
      const made: Weight[][] = [];
      params.levels.forEach((own, l) => {
        const code = l === 0 ? hidden : concat([hidden, matmul(flat(made[l - 1]), own.read)], 1);
        made.push(levels[l].head.weights(own.head, code));
      });
      return made;
    };
    return {
      ...readsCode,
      initOutput: (key, width, moment) => {
        const keys = split(key, 2 * levels.length + 1);
        const example = mul(normal(keys[2 * levels.length], [64, width]), sqrt(moment));
        const params: { levels: any[] } = { levels: [] };
        levels.forEach(({ head: bound }, l) => {
          if (l === 0) {
            params.levels.push({ head: bound.initOutput(keys[0], width, moment) });
            return;
          }
          const { size } = levels[l - 1];
          const before = flat(run({ levels: params.levels.slice(0, l) }, example).at(-1)!);
          const read = mul(
            normal(keys[2 * l], [size, summary]),
            sqrt(div(moment, mul(mean(square(before)), size))),
          );
          const both = mean(square(concat([example, matmul(before, read)], 1)));
          params.levels.push({ read, head: bound.initOutput(keys[2 * l + 1], width + summary, both) });
        });
        return params;
      },
      weights: (params: { levels: any[] }, hidden) => {
        const made = run(params, hidden);
        const all = Array<Weight>(specs.length);
        levels.forEach(({ indices }, l) => {
          indices.forEach((at, i) => {
            all[at] = made[l][i];
          });
        });
        return all;
      },
    };
  };
