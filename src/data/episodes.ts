import { ArgumentError } from '../core/errors.js';
import type { ClassificationFamily, Split } from './task.js';

/** Class ids of each part; the parts must be disjoint. */
export type ClassPools = Readonly<Record<Split, readonly string[]>>;

/** A labelled set of examples from which episodes are drawn. */
export interface EpisodeSource {
  readonly name: string;
  readonly inShape: readonly number[];
  /** Classes in one episode. */
  readonly ways: number;
  readonly pools: ClassPools;
  /** How many examples a class has. */
  examples(id: string): number;
  /** Writes example `index` of a class to `out`, a row of `inShape`. */
  write(id: string, index: number, out: Float32Array): void;
}

/**
 * N-way K-shot classification (Vinyals et al. 2016): each task draws `ways` distinct classes of its split in random
 * order (the order gives the labels) and `shots + queries` distinct examples of each, so that support and query never
 * share one.
 *
 * @throws ArgumentError if a class list has fewer than `ways` classes (when a task is drawn from it), a class fewer
 *   examples than asked for, or two splits share a class.
 */
export function episodes({
  name,
  inShape,
  ways,
  pools,
  examples,
  write,
}: EpisodeSource): ClassificationFamily {
  if (!Number.isSafeInteger(ways) || ways < 2)
    throw new ArgumentError(`${name}: ways must be an integer >= 2, got ${ways}`);
  const owner = new Map<string, Split>();
  for (const split of ['train', 'validation', 'test'] as const)
    for (const id of pools[split]) {
      const other = owner.get(id);
      if (other) throw new ArgumentError(`${name}: class ${id} is listed twice, in ${other} and ${split}`);
      owner.set(id, split);
    }
  const size = inShape.reduce((a, b) => a * b, 1);
  return {
    name,
    kind: 'classification',
    inShape,
    outSize: ways,
    draw({ support, query }, stream, split) {
      const pool = pools[split];
      if (pool.length < ways)
        throw new ArgumentError(
          `${name}: ${ways} ways need as many ${split} classes, there are ${pool.length}`,
        );
      const shots = support.n / ways;
      const queries = query.n / ways;
      stream.sample(pool.length, ways).forEach((chosen, label) => {
        const id = pool[chosen];
        const count = examples(id);
        if (shots + queries > count)
          throw new ArgumentError(
            `${name}: ${shots} shots and ${queries} queries need ${shots + queries} examples of ${id}, it has ${count}`,
          );
        stream.sample(count, shots + queries).forEach((example, i) => {
          const [rows, row] = i < shots ? [support, label * shots + i] : [query, label * queries + i - shots];
          write(id, example, rows.x.subarray(row * size, (row + 1) * size));
          rows.y[row] = label;
        });
      });
    },
  };
}
