/** Einstein sums, composed of permutations, one matmul per pair of operands, and sums. */
import { ArgumentError, ShapeError } from '../core/errors.js';
import { show, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { matmul } from './matmul.js';
import { sum } from './reduce.js';
import { permute, reshape } from './views.js';

interface Labelled {
  readonly x: Tensor;
  readonly axes: string;
}

/**
 * `einsum('tni,tio->tno', x, w)`: letters name axes, letters missing on the right are summed. Operands are combined
 * from left to right. No repeated letter within one operand, no ellipsis. Throws ArgumentError, ShapeError.
 */
export function einsum(spec: string, ...xs: Tensor[]): Tensor {
  const match = /^([a-zA-Z]*(?:,[a-zA-Z]*)*)->([a-zA-Z]*)$/.exec(spec.replaceAll(' ', ''));
  const inputs = match?.[1].split(',');
  const out = match?.[2] ?? '';
  if (!inputs || inputs.length !== xs.length || [...inputs, out].some(a => new Set(a).size !== a.length))
    throw new ArgumentError(`einsum: '${spec}' does not describe ${xs.length} operands (like 'ij,jk->ik')`);
  const sizes = new Map<string, number>();
  inputs.forEach((axes, i) => {
    if (axes.length !== xs[i].rank)
      throw new ShapeError(`einsum: '${axes}' does not name the axes of ${show(xs[i].shape)}`);
    [...axes].forEach((a, k) => {
      const n = xs[i].shape[k];
      if ((sizes.get(a) ?? n) !== n)
        throw new ShapeError(`einsum: axis '${a}' has sizes ${sizes.get(a)} and ${n}`);
      sizes.set(a, n);
    });
  });
  for (const a of out)
    if (!sizes.has(a)) throw new ArgumentError(`einsum: '${a}' of the result is in no operand`);

  let left: Labelled = { x: xs[0], axes: inputs[0] };
  for (let i = 1; i < xs.length; i++) {
    const later = inputs.slice(i + 1).join('') + out;
    left = pair(left, { x: xs[i], axes: inputs[i] }, later, sizes);
  }
  return ordered(sumUnused(left, out), out);
}

/** Sums axes that nothing later needs. */
function sumUnused({ x, axes }: Labelled, needed: string): Labelled {
  const gone = [...axes].flatMap((a, i) => (needed.includes(a) ? [] : [i]));
  return { x: sum(x, gone), axes: [...axes].filter(a => needed.includes(a)).join('') };
}
const ordered = ({ x, axes }: Labelled, to: string): Tensor =>
  permute(
    x,
    [...to].map(a => axes.indexOf(a)),
  );

/** Two operands as one batched product: shared and needed axes are the batch, shared and not needed ones are summed. */
function pair(l: Labelled, r: Labelled, later: string, sizes: ReadonlyMap<string, number>): Labelled {
  const a = sumUnused(l, r.axes + later);
  const b = sumUnused(r, l.axes + later);
  const shared = [...a.axes].filter(c => b.axes.includes(c));
  const batch = shared.filter(c => later.includes(c)).join('');
  const inner = shared.filter(c => !later.includes(c)).join('');
  const rows = [...a.axes].filter(c => !shared.includes(c)).join('');
  const columns = [...b.axes].filter(c => !shared.includes(c)).join('');
  const dims = (axes: string) => [...axes].map(c => sizes.get(c)!);
  const count = (axes: string) => sizeOf(dims(axes));
  const left = reshape(ordered(a, batch + rows + inner), [...dims(batch), count(rows), count(inner)]);
  const right = reshape(ordered(b, batch + inner + columns), [...dims(batch), count(inner), count(columns)]);
  const axes = batch + rows + columns;
  return { x: reshape(matmul(left, right), dims(axes)), axes };
}
