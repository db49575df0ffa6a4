/**
 * Products of rows that belong to tasks of different row counts: task t owns rows `offsets[t] .. offsets[t+1]-1`.
 * Both ops are bilinear and each other's derivatives, so they are closed under derivatives of any order.
 */
import { ShapeError } from '../core/errors.js';
import { apply, type Dense, defineOp, type OpSpec } from '../core/op.js';
import { show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { transpose } from './views.js';

const dtypes = ['f32', 'f32', 'i32'] as const;

/** Calls `visit(task, row)` for every row. */
function eachRow(offsets: Dense, visit: (task: number, row: number) => void): void {
  for (let t = 0; t + 1 < offsets.data.length; t++)
    for (let r = offsets.data[t]; r < offsets.data[t + 1]; r++) visit(t, r);
}
function checkOffsets(op: string, x: Tensor, offsets: Tensor, tasks: number): void {
  if (x.rank !== 2 || offsets.rank !== 1 || offsets.shape[0] !== tasks + 1)
    throw new ShapeError(
      `${op}: rows ${show(x.shape)} and offsets ${show(offsets.shape)} do not fit ${tasks} tasks`,
    );
}

const matmulSpec: OpSpec<undefined> = {
  name: 'raggedMatmul',
  dtypes,
  outputs: ([x, w, offsets]) => {
    checkOffsets('raggedMatmul', x, offsets, w.shape[0]);
    if (w.rank !== 3 || x.shape[1] !== w.shape[1])
      throw new ShapeError(`raggedMatmul: inner sizes differ, ${show(x.shape)} x ${show(w.shape)}`);
    return { shape: [x.shape[0], w.shape[2]] };
  },
  ref: ([y]: readonly Dense[], [x, w, offsets]: readonly Dense[]) => {
    const [, I, O] = w.shape;
    eachRow(offsets, (t, r) => {
      for (let o = 0; o < O; o++) {
        let total = 0;
        for (let i = 0; i < I; i++) total += x.data[r * I + i] * w.data[(t * I + i) * O + o];
        y.data[r * O + o] = total;
      }
    });
  },
  vjp: (g, [x, w, offsets]) => [
    () => raggedMatmul(g, transpose(w), offsets),
    () => raggedOuter(x, g, offsets),
    null,
  ],
};
const outerSpec: OpSpec<undefined> = {
  name: 'raggedOuter',
  dtypes,
  outputs: ([x, g, offsets]) => {
    checkOffsets('raggedOuter', x, offsets, offsets.shape[0] - 1);
    if (g.rank !== 2 || g.shape[0] !== x.shape[0])
      throw new ShapeError(`raggedOuter: row counts differ, ${show(x.shape)} and ${show(g.shape)}`);
    return { shape: [offsets.shape[0] - 1, x.shape[1], g.shape[1]] };
  },
  ref: ([w]: readonly Dense[], [x, g, offsets]: readonly Dense[]) => {
    const [, I, O] = w.shape;
    const total = new Float64Array(w.data.length);
    eachRow(offsets, (t, r) => {
      for (let i = 0; i < I; i++)
        for (let o = 0; o < O; o++) total[(t * I + i) * O + o] += x.data[r * I + i] * g.data[r * O + o];
    });
    w.data.set(total);
  },
  vjp: (g, [x, y, offsets]) => [
    () => raggedMatmul(y, transpose(g), offsets),
    () => raggedMatmul(x, g, offsets),
    null,
  ],
};
defineOp(matmulSpec);
defineOp(outerSpec);

/** `x[r] · w[task of r]`: `[N,i] · [T,i,o] -> [N,o]`, offsets i32 `[T+1]` from 0 to N. Throws ShapeError. */
export const raggedMatmul = (x: Tensor, w: Tensor, offsets: Tensor): Tensor =>
  apply(matmulSpec, [x, w, offsets], undefined)[0];

/** Per task the sum over its rows of `outer(x[r], g[r])`: `[N,i], [N,o] -> [T,i,o]`. Throws ShapeError. */
export const raggedOuter = (x: Tensor, g: Tensor, offsets: Tensor): Tensor =>
  apply(outerSpec, [x, g, offsets], undefined)[0];
