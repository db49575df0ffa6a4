/** softmax and logSoftmax, over the last axis and safe at any magnitude. */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import type { Tensor } from '../core/tensor.js';
import { exp, mul, sub } from './elementwise.js';
import { sum } from './reduce.js';

/** Per row: the largest value and the log of the sum of exponentials above it. */
function rows(
  [out]: readonly Dense[],
  [x]: readonly Dense[],
  f: (x: number, top: number, logSum: number) => number,
) {
  const n = x.shape[x.shape.length - 1];
  for (let start = 0; start < x.data.length; start += n) {
    const row = x.data.subarray(start, start + n);
    let top = -Infinity;
    for (const v of row) top = Math.max(top, v);
    let total = 0;
    for (const v of row) total += Math.exp(v - top);
    for (let i = 0; i < n; i++) out.data[start + i] = f(row[i], top, Math.log(total));
  }
}
const needsAxis = (op: string) => (ins: readonly Tensor[]) => {
  if (ins[0].rank === 0) throw new ShapeError(`${op}: a scalar has no last axis`);
  return { shape: ins[0].shape };
};

const softmaxSpec: OpSpec<undefined> = {
  name: 'softmax',
  outputs: needsAxis('softmax'),
  ref: (outs, ins) => rows(outs, ins, (x, top, logSum) => Math.exp(x - top - logSum)),
  vjp: (g, _ins, out) => [() => mul(out, sub(g, sum(mul(g, out), -1, { keepDims: true })))],
};
defineOp(softmaxSpec);
/** exp(x) / Σ exp(x) over the last axis. */
export const softmax = (x: Tensor): Tensor => apply(softmaxSpec, [x], undefined)[0];

const logSoftmaxSpec: OpSpec<undefined> = {
  name: 'logSoftmax',
  outputs: needsAxis('logSoftmax'),
  ref: (outs, ins) => rows(outs, ins, (x, top, logSum) => x - top - logSum),
  vjp: (g, _ins, out) => [() => sub(g, mul(exp(out), sum(g, -1, { keepDims: true })))],
};
defineOp(logSoftmaxSpec);
/** x - log Σ exp(x) over the last axis. */
export const logSoftmax = (x: Tensor): Tensor => apply(logSoftmaxSpec, [x], undefined)[0];
