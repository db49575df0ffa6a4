/** How products are cut into tiles: a static table by the kind of adapter and the shape, unless tuning found better. */
import type { Device } from './device.js';

/** A product's sizes, and which operands are contiguous along their last axis (k of a, n of b). */
export interface ProductSizes {
  readonly batch: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly aByRows: boolean;
  readonly bByRows: boolean;
}

/**
 * A thread computes rows x columns results; threadsM x threadsN of them make a workgroup. Of matmulLanes a workgroup is
 * one subgroup, side by side along n.
 */
export interface Tiling {
  readonly body: 'matmulDirect' | 'matmulLanes' | 'matmulTiled';
  readonly rows: number;
  readonly columns: number;
  readonly threadsM: number;
  readonly threadsN: number;
  /** Of matmulTiled: how much of k is staged at once. */
  readonly tileK?: number;
  /** Into how many parts k is cut; as many as give every core work unless stated. */
  readonly parts?: number;
}

/** What tuning found, by `tilingKey`. */
export interface Tuning {
  readonly tiles: Map<string, Tiling>;
  /** Collects the products that are lowered, while somebody wants to know. */
  seen: Map<string, ProductSizes> | null;
}

/** A backend whose tiles can be tuned. */
export interface Tunable {
  readonly device: Device;
  readonly tuning: Tuning;
  /** Uses a tiling for products of this key from now on; null goes back to the static table. */
  retile(key: string, tiling: Tiling | null): void;
}

/** The least power of two >= x, at least 1 and at most `most`. */
const power = (x: number, most = Infinity): number =>
  Math.min(most, 2 ** Math.ceil(Math.log2(Math.max(1, x))));

/** Products of one key share a tiling: sizes count by the power of two that holds them. */
export const tilingKey = ({ batch, m, n, k, aByRows, bByRows }: ProductSizes): string =>
  `${power(batch)}:${power(m)}x${power(k)}x${power(n)}${aByRows ? 'r' : 'c'}${bByRows ? 'r' : 'c'}`;

/** The least size of equal parts, each at most `most`, that hold x. */
export const even = (x: number, most: number): number => Math.ceil(x / Math.ceil(x / most));

/**
 * Software adapters: no barriers, and so many results per thread as repay the loads, though not all stay in registers.
 * 8 neighbouring threads fill a vector register where the device has no subgroups of one size.
 */
function softwareTiling({ m, n }: ProductSizes, subgroup: number): Tiling {
  const body = 'matmulDirect';
  if (n < 4) {
    const rows = m > 8 ? even(Math.ceil(m / 8), 4) : 1;
    return { body, rows, columns: power(n, 4), threadsM: 8, threadsN: 1 };
  }
  if (subgroup > 1) {
    const columns = even(Math.ceil(n / subgroup), 4);
    return { body: 'matmulLanes', rows: even(m, 32), columns, threadsM: 1, threadsN: subgroup };
  }
  const columns = even(Math.ceil(n / 8), 8);
  const rows = even(m, Math.min(12, Math.floor(64 / columns)));
  return { body, rows, columns, threadsM: 1, threadsN: 8 };
}

/** GPUs: shared tiles where both sides fill one, the larger tile where it still gives every core work. */
function gpuTiling({ m, n, k, batch }: ProductSizes): Tiling {
  if (m > 16 && n > 16 && k >= 16) {
    const large = Math.floor(m / 128) * Math.floor(n / 128) * batch >= 128;
    const side = large ? 8 : 4;
    const tileK = large ? 8 : 16;
    return { body: 'matmulTiled', rows: side, columns: side, threadsM: 16, threadsN: 16, tileK };
  }
  const body = 'matmulDirect';
  if (m === 1) return { body, rows: 1, columns: 1, threadsM: 1, threadsN: 64 };
  if (n === 1) return { body, rows: 1, columns: 1, threadsM: 64, threadsN: 1 };
  return { body, rows: power(m / 8, 4), columns: power(n / 8, 4), threadsM: 8, threadsN: 8 };
}

/** What tilings depend on beside the sizes; see `Call`. */
interface Traits {
  readonly software: boolean;
  readonly subgroup: number;
  readonly tuning?: Tuning;
}

/** The tiling of a product: what tuning found for its key, else the static table's. */
export function tilingOf(sizes: ProductSizes, { software, subgroup, tuning }: Traits): Tiling {
  const key = tilingKey(sizes);
  tuning?.seen?.set(key, sizes);
  return tuning?.tiles.get(key) ?? (software ? softwareTiling(sizes, subgroup) : gpuTiling(sizes));
}
