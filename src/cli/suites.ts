/** The workloads of the bench as data and closures: one builder of cases per suite letter. */
import { cases } from '../../tests/cases.js';
import { valueAndGrad, vjp } from '../core/grad.js';
import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import {
  add,
  batchNorm,
  conv2d,
  crossEntropy,
  full,
  key,
  layerNorm,
  matmul,
  maxPool,
  mean,
  mul,
  relu,
  reshape,
  softmax,
  square,
  sub,
  sum,
  tensor,
  transpose,
  uniform,
  unpack,
} from '../ops/index.js';
import { adam, applyUpdates } from '../optim/index.js';
import { operandsOf } from './check.js';
import type { TimingRule } from './timing.js';

/** What is read of the workload file. */
export interface Workloads {
  readonly timing: TimingRule;
  readonly A: { cases: { id: string; N: number }[] };
  readonly B: { cases: { id: string; T: number; k: number; D: number }[] };
  readonly C: { T: number[]; nio: [number, number, number][] };
  readonly D: { cases: { id: string; T: number; k: number; n: number; i: number; o: number }[] };
  readonly E: {
    cases: {
      id: string;
      T: number;
      support: number;
      query: number;
      enc: number[];
      gen: number;
      target: number[];
    }[];
  };
  readonly F: { cases: { id: string; batch: number }[] };
  readonly G: { cases: { id: string; n?: number; shape?: number[] }[] };
  readonly H: { cases: { id: string; chain: number }[] };
}

/** One line of the bench: `step` on what `inputs` makes. */
export interface BenchCase {
  readonly id: string;
  readonly pass: 'fwd' | 'bwd' | 'fwdbwd' | 'fwdgrad' | 'step';
  readonly flops?: number;
  /** Makes what `step` is called with, and nothing it does not read: the bytes of the line are theirs. */
  readonly inputs: () => unknown[];
  readonly step: (...inputs: any[]) => unknown;
  /** So many leading inputs are replaced by the leading results at every call (and donated when compiled). */
  readonly carried?: number;
  /** The scalar whose fall shows that the step trains; it is read at the end of each sample. */
  readonly loss?: (result: any) => Tensor;
  /** What is timed is the dispatch itself, to which no rate of the machine applies. */
  readonly dispatch?: boolean;
}

let draws = 0;
/** Uniform on [-scale/2, scale/2). */
const random = (shape: Shape, scale = 1): Tensor => uniform(key(++draws), shape, -scale / 2, scale / 2);
/** One maker of random tensors for each shape. */
const drawn = (...shapes: Shape[]) => shapes.map(shape => () => random(shape));

type Suite = (workloads: Workloads) => BenchCase[];

const A: Suite = ({ A }) =>
  A.cases.map(({ id, N }) => ({
    id,
    pass: 'fwd',
    flops: 2 * N ** 3,
    inputs: () => [random([N, N]), random([N, N])],
    step: matmul,
  }));

const B: Suite = ({ B }) =>
  B.cases.flatMap(({ id, T, k, D }): BenchCase[] => {
    const flops = 2 * T * k * D;
    const [H, P, p, G] = drawn([T, k], [k, D], [D], [T, D]);
    const forward = (H: Tensor, P: Tensor, p: Tensor) => add(matmul(H, P), p);
    return [
      { id, pass: 'fwd', flops, inputs: () => [H(), P(), p()], step: forward },
      {
        id,
        pass: 'bwd',
        flops: 2 * flops,
        inputs: () => [H(), P(), G()],
        step: (H: Tensor, P: Tensor, G: Tensor) => [matmul(G, transpose(P)), matmul(transpose(H), G)],
      },
      {
        id,
        pass: 'fwdbwd',
        flops: 3 * flops,
        inputs: () => [H(), P(), p(), G()],
        step: gradients(forward, 3),
      },
    ];
  });

const C: Suite = ({ C }) =>
  C.T.flatMap(T =>
    C.nio.flatMap(([n, i, o]): BenchCase[] => {
      const id = `C${T}x${n}x${i}x${o}`;
      const flops = 2 * T * n * i * o;
      const [X, W, b, G] = drawn([T, n, i], [T, i, o], [T, 1, o], [T, n, o]);
      const forward = (X: Tensor, W: Tensor, b: Tensor) => add(matmul(X, W), b);
      return [
        { id, pass: 'fwd', flops, inputs: () => [X(), W(), b()], step: forward },
        {
          id,
          pass: 'bwd',
          flops: 2 * flops,
          inputs: () => [X(), W(), G()],
          step: (X: Tensor, W: Tensor, G: Tensor) => [
            matmul(G, transpose(W)),
            matmul(transpose(X), G),
            sum(G, 1),
          ],
        },
        {
          id,
          pass: 'fwdbwd',
          flops: 3 * flops,
          inputs: () => [X(), W(), b(), G()],
          step: gradients(forward, 3),
        },
      ];
    }),
  );

const D: Suite = ({ D }) =>
  D.cases.flatMap(({ id, T, k, n, i, o }): BenchCase[] => {
    const flops = 2 * T * k * i * o + 2 * T * n * i * o;
    const [H, P, p, X, b, G] = drawn([T, k], [k, i * o], [i * o], [T, n, i], [T, 1, o], [T, n, o]);
    const forward = (H: Tensor, P: Tensor, p: Tensor, X: Tensor, b: Tensor) =>
      add(matmul(X, reshape(add(matmul(H, P), p), [T, i, o])), b);
    return [
      { id, pass: 'fwd', flops, inputs: () => [H(), P(), p(), X(), b()], step: forward },
      {
        id,
        pass: 'fwdbwd',
        flops: 3 * flops,
        inputs: () => [H(), P(), p(), X(), b(), G()],
        step: gradients(forward, 5),
      },
    ];
  });

/** The value of `forward` and its gradients in the first `n` operands, given the output's cotangent behind them. */
const gradients = (forward: (...xs: Tensor[]) => Tensor, n: number) => {
  return (...inputs: Tensor[]) => {
    const { value, pullback } = vjp((xs: Tensor[]) => forward(...xs), inputs.slice(0, n));
    return [value, pullback(inputs[n])];
  };
};

/** A linear layer's weight and bias as PyTorch draws them. */
const layer = (i: number, o: number) => ({
  w: random([i, o], 2 / Math.sqrt(i)),
  b: random([o], 2 / Math.sqrt(i)),
});
type Layer = ReturnType<typeof layer>;
const dense = ({ w, b }: Layer, x: Tensor) => add(matmul(x, w), b);

/** Whole training steps of sinusoid hypernetworks with Adam: suite E. */
export const trainingSteps = ({ E }: Pick<Workloads, 'E'>): BenchCase[] =>
  E.cases.map(({ id, T, support, query, enc, gen, target }): BenchCase => {
    const optimiser = adam(1e-3);
    const shapes = target.slice(1).flatMap((o, l) => [
      [T, target[l], o],
      [T, 1, o],
    ]);
    const sizes = shapes.map(([, a, b]) => a * b);
    // Every layer's product, its weight's gradient and, but where that is the data, its operand's gradient.
    const product = (layers: number[], rows: number) =>
      layers.slice(1).reduce((flops, o, l) => flops + (l === 0 ? 2 : 3) * 2 * rows * layers[l] * o, 0);
    const width = enc[enc.length - 1];
    const flops = product(enc, T * support) + 3 * 2 * T * width * gen + product(target, T * query);
    type Params = { encoder: Layer[]; head: Layer };
    const loss = ({ encoder, head }: Params, sup: Tensor, qx: Tensor, qy: Tensor) => {
      const code = mean(
        encoder.reduce((h, l) => relu(dense(l, h)), sup),
        1,
      );
      const theta = unpack(dense(head, code), sizes).map((w, i) => reshape(w, shapes[i]));
      let y = qx;
      for (let l = 0; l < theta.length; l += 2) {
        y = add(matmul(y, theta[l]), theta[l + 1]);
        if (l + 2 < theta.length) y = relu(y);
      }
      return mean(square(sub(y, qy)));
    };
    return {
      id,
      pass: 'step',
      flops,
      inputs: () => {
        const params: Params = {
          encoder: enc.slice(1).map((o, l) => layer(enc[l], o)),
          head: layer(width, gen),
        };
        const batch = [random([T, support, enc[0]], 4), random([T, query, target[0]], 10)];
        return [params, optimiser.init(params), ...batch, random([T, query, 1], 4)];
      },
      step: (
        params: Params,
        state: ReturnType<typeof optimiser.init>,
        ...batch: [Tensor, Tensor, Tensor]
      ) => {
        const { value, grads } = valueAndGrad(loss)(params, ...batch);
        const [updates, next] = optimiser.update(grads, state, params);
        return [applyUpdates(params, updates), next, value];
      },
      carried: 2,
      loss: result => result[2],
    };
  });

const F: Suite = ({ F }) =>
  F.cases.map(({ id, batch }): BenchCase => {
    const blocks = [1, 64, 64, 64];
    type Params = { blocks: { w: Tensor; b: Tensor; scale: Tensor; shift: Tensor }[]; head: Layer };
    const loss = (params: Params, x: Tensor, labels: Tensor) => {
      const code = params.blocks.reduce(
        (h, { w, b, scale, shift }) =>
          maxPool(relu(batchNorm(add(conv2d(h, w, { padding: 1 }), b), scale, shift)), 2),
        x,
      );
      return mean(crossEntropy(dense(params.head, reshape(code, [batch, 64])), labels));
    };
    const run = valueAndGrad(loss);
    return {
      id,
      pass: 'fwdbwd',
      flops: 3 * batch * 2 * 9 * 64 * (28 * 28 + 14 * 14 * 64 + 7 * 7 * 64 + 3 * 3 * 64),
      inputs: () => [
        {
          blocks: blocks.map(c => ({
            w: random([3, 3, c, 64], 0.1),
            b: random([64], 0.1),
            scale: full([64], 1),
            shift: full([64], 0),
          })),
          head: layer(64, 5),
        },
        random([batch, 28, 28, 1]),
        tensor(Int32Array.from({ length: batch }, (_, i) => i % 5)),
      ],
      step: (params: Params, x: Tensor, labels: Tensor) => run(params, x, labels).grads,
    };
  });

const steps: Record<string, { operands: Shape[]; step: (...xs: Tensor[]) => Tensor }> = {
  affrelu: { operands: [], step: x => relu(add(mul(x, 1.5), -0.25)) },
  softmax: { operands: [], step: softmax },
  sum0: { operands: [], step: x => sum(x, 0) },
  sum1: { operands: [], step: x => sum(x, 1) },
  layernorm: { operands: [[-1], [-1]], step: (x, scale, shift) => layerNorm(x, scale, shift) },
};

const G: Suite = ({ G }) =>
  G.cases.map(({ id, n, shape = [n!] }): BenchCase => {
    const { operands, step } = steps[id.split('-')[1]];
    const last = shape[shape.length - 1];
    return { id, pass: 'fwd', inputs: () => [random(shape), ...operands.map(() => random([last]))], step };
  });

const H: Suite = ({ H }) =>
  H.cases.flatMap(({ id, chain }): BenchCase[] => {
    const inputs = () => [full([1], 0), full([1], 1)];
    const run = (x: Tensor, one: Tensor) => {
      for (let i = 0; i < chain; i++) x = add(x, one);
      return x;
    };
    const both = valueAndGrad((x: Tensor, one: Tensor) => sum(run(x, one)));
    return [
      { id, pass: 'fwd', inputs, step: run, dispatch: true },
      {
        id,
        pass: 'fwdgrad',
        inputs,
        step: (x: Tensor, one: Tensor) => vjp(([y]: Tensor[]) => run(y, one), [x]).value,
        dispatch: true,
      },
      { id, pass: 'fwdbwd', inputs, step: (x: Tensor, one: Tensor) => both(x, one).grads, dispatch: true },
    ];
  });

/** Every op of the case table, on its last row. */
const O: Suite = () =>
  Object.entries(cases).map(([id, rows]): BenchCase => {
    const index = rows.length - 1;
    return { id, pass: 'fwd', inputs: () => operandsOf(id, index), step: rows[index].call };
  });

/** Suites by their letter: those of the workload file, and O for the ops themselves. */
export const SUITES: Readonly<Record<string, Suite>> = { A, B, C, D, E: trainingSteps, F, G, H, O };
