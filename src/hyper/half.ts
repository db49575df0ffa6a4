/** Hypernetworks whose basis, nearly all there is to store of one, takes half the bytes. */
import { sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { HalfGenerated, matmul, narrow, projectFull, reshape, slice, unpack, widen } from '../ops/index.js';
import type { BasisFormat } from './head.js';
import type { HypernetParams } from './hypernet.js';

/** For heads that read a basis stored by `halve`, in f16 with sums in f32: `fullHead({ basis: f16 })`. */
export const f16: BasisFormat = {
  project: (code, basis, base, shapes) => {
    if (basis.dtype !== 'u32') return projectFull(code, basis, base, shapes);
    const sizes = shapes.map(sizeOf);
    const bases = base && unpack(base, sizes);
    let start = 0;
    return shapes.map((shape, k) => {
      const at = start;
      start += sizes[k];
      return new HalfGenerated(code, basis, shape, bases && reshape(bases[k], shape), at);
    });
  },
  times: (code, basis, size) =>
    basis.dtype === 'u32' ? new HalfGenerated(code, basis, [size]).materialise() : matmul(code, basis),
  whole: (basis, size) => (basis.dtype === 'u32' ? slice(widen(basis), 1, 0, size) : basis),
};

/**
 * Parameters with every basis of the head rounded to f16: pairs of halves in u32 words, for a hypernetwork whose heads
 * have `basis: f16`. Weights change by at most 2^-11 Σ_e |code[e]| |basis[e]|, and 2^-25 Σ_e |code[e]| (see
 * `HalfGenerated.errorBound`). To keep, to send and to predict with; the basis is trained no more, the code and all
 * other parameters can be. Throws ArgumentError where a number is too large for f16.
 */
export async function halve<P extends HypernetParams>(phi: P): Promise<P> {
  const halved = await Promise.all(
    tree
      .entries<Tensor>(phi.head)
      .map(([path, leaf]) => (/(^|\.)basis$/.test(path) && leaf.dtype === 'f32' ? narrow(leaf) : leaf)),
  );
  return { ...phi, head: tree.rebuild(phi.head, halved) };
}
