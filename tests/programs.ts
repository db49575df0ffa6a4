/** Steps that the backends' test files share: random ones for the property "compiled equals eager", and a training step. */
import * as fc from 'fast-check';
import { trainingSteps } from '../src/cli/suites.js';
import type { Tensor } from '../src/core/tensor.js';
import * as o from '../src/ops/index.js';
import { compile } from '../src/program/compile.js';

/** One operation on earlier values (indices are taken modulo their number). All values are [3,3]. */
interface Move {
  readonly kind: number;
  readonly a: number;
  readonly b: number;
}

export interface RandomStep {
  readonly moves: readonly Move[];
  readonly outputs: readonly number[];
  readonly donate: readonly number[];
  readonly seed: number;
}

const kinds: ((a: Tensor, b: Tensor) => Tensor)[] = [
  (a, b) => o.add(a, b),
  (a, b) => o.mul(a, o.sigmoid(b)),
  (a, b) => o.sub(a, o.transpose(b)),
  a => o.tanh(a),
  a => o.relu(o.sub(a, 0.1)),
  (a, b) => o.mul(o.matmul(a, b), 0.3),
  (a, b) => o.tanh(o.add(o.matmul(a, o.transpose(b)), o.slice(b, 0, 0, 1))),
  (a, b) => o.add(a, o.mul(o.sum(b, 0, { keepDims: true }), 0.2)),
  (a, b) => o.mul(a, o.mean(b)),
  (a, b) => o.slice(o.concat([a, b], 1), 1, 2, 5),
  (a, b) => o.reshape(o.slice(o.pad(o.reshape(o.add(a, b), [9]), 0, 2, 3), 0, 1, 10), [3, 3]),
  (a, b) => o.where(o.gt(a, b), o.transpose(a), 0.5),
  (a, b) => o.div(a, o.add(o.maxOver(o.abs(b), 1, { keepDims: true }), 1)),
  a => o.reshape(o.mul(o.reshape(o.square(a), [9]), 0.5), [3, 3]),
  (a, b) => o.slice(o.concat([o.matmul(a, b), o.concat([o.square(a), o.mul(b, 0.5)], 0)], 0), 0, 2, 5),
  (a, b) => o.concat([o.sum(a, 0, { keepDims: true }), o.tanh(o.slice(b, 0, 1, 3))], 0),
];

export const randomStep: fc.Arbitrary<RandomStep> = fc.record({
  moves: fc.array(fc.record({ kind: fc.nat(kinds.length - 1), a: fc.nat(99), b: fc.nat(99) }), {
    minLength: 1,
    maxLength: 14,
  }),
  outputs: fc.array(fc.nat(99), { minLength: 3, maxLength: 4 }),
  donate: fc.subarray([0, 1, 2]),
  seed: fc.nat(1000),
});

/** Runs the step eagerly and twice compiled (the second time replayed); returns the three lists of results. */
export async function runBoth(
  step: RandomStep,
): Promise<{ eager: number[][]; first: number[][]; again: number[][] }> {
  const body = (...args: Tensor[]) => {
    const values = [...args];
    const pick = (i: number) => values[i % values.length];
    for (const { kind, a, b } of step.moves) values.push(kinds[kind](pick(a), pick(b)));
    return step.outputs.map(pick);
  };
  const args = () => o.split(o.key(step.seed), 3).map(k => o.normal(k, [3, 3]));
  const read = async (xs: Tensor[]) => {
    const out: number[][] = [];
    for (const x of xs) out.push(Array.from(await x.data()));
    return out;
  };
  const compiled = compile(body, { donate: step.donate });
  const eager = await read(body(...args()));
  const first = await read(compiled(...args()));
  const again = await read(compiled(...args()));
  compiled.dispose();
  return { eager, first, again };
}

/** The bench's step E25, compiled, and what makes its parameters, optimiser's state and batch. */
export function hypernetStep() {
  const shapes = { T: 25, support: 10, query: 10, enc: [2, 64, 64], gen: 1761, target: [1, 40, 40, 1] };
  const [{ inputs, step }] = trainingSteps({ E: { cases: [{ id: 'E25', ...shapes }] } });
  const typed = step as (...args: unknown[]) => [params: unknown, state: unknown, loss: Tensor];
  return { inputs, step: compile(typed, { donate: [0, 1] }) };
}
