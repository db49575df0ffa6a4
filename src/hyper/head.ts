/**
 * Heads: the last stage of a hypernetwork, which turns a hidden code into weights. At the start every generated weight
 * has the mean and the variance the target's own initialisation would give it, over tasks and seeds.
 *
 * Chang, Flokas, Lipson, "Principled weight initialization for hypernetworks", ICLR 2020 (hyperfan-in, hyperfan-out).
 */
import { ArgumentError } from '../core/errors.js';
import { type Shape, sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import type { FanMode, ParamSpec } from '../nn/index.js';
import {
  add,
  broadcastTo,
  ChunkedGenerated,
  concat,
  expand,
  full,
  LowRankGenerated,
  matmul,
  mul,
  normal,
  projectFull,
  reshape,
  rsqrt,
  slice,
  split,
  sqrt,
  unpack,
  type Weight,
} from '../ops/index.js';

/** A head that knows which weights it is to make. */
export interface BoundHead {
  /** Width of what the trunk reads, for a code of width E. */
  trunkSize(code: number): number;
  /** Parameters that stand before the trunk, for codes of width E and mean square `moment` (a scalar). */
  initInput(key: Tensor, code: number, moment: Tensor): Record<string, any>;
  /** What the trunk reads: the code `[T,E]`, or one row per slot `[T,C,E+...]`. */
  input(params: any, code: Tensor): Tensor;
  /** Parameters that stand behind the trunk, for hidden codes of `width` and mean square `moment` (a scalar). */
  initOutput(key: Tensor, width: number, moment: Tensor): Record<string, any>;
  /** One weight with a task axis for each spec, in order. */
  weights(params: any, hidden: Tensor): Weight[];
}

/** How hidden codes become weights: made before the target is known, bound to it by `hypernet`. */
export type Head = (specs: readonly ParamSpec[]) => BoundHead;

/** How a head reads its basis: f32 tensors, or (`f16`) words of halves too. */
export interface BasisFormat {
  /** Weights of the given shapes, from a code `[T,E]`, a basis of as many columns, and a base `[P]`. */
  project(code: Tensor, basis: Tensor, base: Tensor | null, shapes: readonly Shape[]): Weight[];
  /** code · basis `[T,size]`. */
  times(code: Tensor, basis: Tensor, size: number): Tensor;
  /** The basis `[E,size]` in f32. */
  whole(basis: Tensor, size: number): Tensor;
}
const f32: BasisFormat = { project: projectFull, times: matmul, whole: basis => basis };

export interface HeadOptions {
  /** `f16`, to read a basis that `halve` stored in half the bytes; one in f32 is read by either. */
  readonly basis?: BasisFormat;
  /** Weights are a part all tasks share, learned, plus the generated part. */
  readonly base?: boolean;
  /** Share of the starting variance that is generated, the rest being the base's: 1 without a base, else 0.5. */
  readonly share?: number;
  /** 'in': hyperfan-in, 'out': hyperfan-out, 'average': between them; the target layer's own choice unless given. */
  readonly fan?: FanMode;
  /**
   * False (default): generated biases start at 0 and weights with the full variance. True: biases carry variance as
   * in the paper, half of the layer's for hyperfan-in, what the weights lack for hyperfan-out.
   */
  readonly biasVariance?: boolean;
}

/** Starting variance of each weight. */
function variances(specs: readonly ParamSpec[], { fan, biasVariance = false }: HeadOptions): number[] {
  return specs.map(spec => {
    const mode = fan ?? spec.mode;
    const halved = biasVariance && mode === 'in';
    if (spec.role === 'weight') return spec.variance(mode) / (halved ? 2 : 1);
    if (spec.role === 'scale' || !biasVariance) return 0;
    const { gain, in: fanIn, out: fanOut } = spec.fan;
    return halved ? gain / 2 : Math.max(gain * (1 - fanIn / fanOut), 0);
  });
}

const shareOf = ({ base, share = base ? 0.5 : 1 }: HeadOptions): number => {
  if (!(share >= 0 && share <= 1) || (!base && share !== 1))
    throw new ArgumentError(`head: share must be in [0,1], and 1 without a base; got ${share}`);
  return share;
};

const sizesOf = (specs: readonly ParamSpec[]) => specs.map(spec => spec.size);
const total = (sizes: readonly number[]) => sizes.reduce((a, b) => a + b, 0);

/** Columns of the given sizes, normal with the given variances: `[rows, sum of sizes]`. */
const columns = (key: Tensor, rows: number, sizes: readonly number[], vars: readonly number[]): Tensor =>
  mul(normal(key, [rows, total(sizes)]), concat(sizes.map((n, i) => full([n], Math.sqrt(vars[i])))));

const flatMeans = (specs: readonly ParamSpec[]): Tensor =>
  concat(specs.map(spec => full([spec.size], spec.mean)));

/** The learned base of all weights, flat `[P]`, around their means. */
const drawBase = (key: Tensor, specs: readonly ParamSpec[], vars: readonly number[]): Tensor =>
  add(reshape(columns(key, 1, sizesOf(specs), vars), [-1]), flatMeans(specs));

/** What stands in for a base where none is learned: the means, or null where all are 0. */
const fixedBase = (specs: readonly ParamSpec[]): Tensor | null =>
  specs.every(spec => spec.mean === 0) ? null : flatMeans(specs);

/** A flat base cut into the weights' shapes. */
const basesOf = (base: Tensor | null, specs: readonly ParamSpec[]): (Tensor | null)[] =>
  base ? unpack(base, sizesOf(specs)).map((b, i) => reshape(b, specs[i].shape)) : specs.map(() => null);

/** The stage before the trunk of a head that reads the code as it is. */
export const readsCode = {
  trunkSize: (code: number) => code,
  initInput: () => ({}),
  input: (_params: unknown, code: Tensor) => code,
};

/**
 * Every weight has a basis of its own: W[t] = Σ_e code[t,e] · basis[e] + base. Parameters are one flat projection,
 * basis `[E,P]` and base `[P]`, so that all weights can be made by one product.
 */
export function fullHead(options: HeadOptions = {}): Head {
  const { base = true, basis: format = f32 } = options;
  const share = shareOf({ ...options, base });
  return specs => {
    const vars = variances(specs, options);
    const generated = vars.map(v => share * v);
    const shared = vars.map(v => (1 - share) * v);
    return {
      ...readsCode,
      initOutput: (key, width, moment) => {
        const [forBasis, forBase] = split(key);
        const scale = rsqrt(mul(moment, width));
        const basis = mul(columns(forBasis, width, sizesOf(specs), generated), scale);
        return { basis, ...(base && { base: drawBase(forBase, specs, shared) }) };
      },
      weights: (params: { basis: Tensor; base?: Tensor }, hidden) =>
        format.project(
          hidden,
          params.basis,
          params.base ?? fixedBase(specs),
          specs.map(spec => spec.shape),
        ),
    };
  };
}

export interface ChunkedOptions extends HeadOptions {
  /** Weights one slot makes. */
  readonly chunk: number;
  /** Width of a slot's embedding; 32 unless given. */
  readonly slot?: number;
}

/**
 * All weights in a row are cut into chunks; each chunk has a learned embedding (its slot) that goes through the trunk
 * beside the code, and one basis `[E,chunk]` makes them all, so that there can be fewer parameters than weights (von
 * Oswald et al. 2020). A base, if asked for, costs as many parameters as there are weights.
 *
 * Use it with a trunk: without one the code would move all chunks alike. Slots start as long as a typical code, so that
 * neither drowns the other; where the code dominates, all chunks are nearly the same and the target's outputs explode.
 *
 * One basis cannot start with another variance for each weight, so each weight's hidden codes are scaled by a constant
 * to what it needs: exact, also where a chunk spans several weights. (hypnettorch sets the variance of the slots'
 * embeddings instead, which can only reach variances above what the code itself contributes.) Generated biases and
 * scales cannot start at exactly 0: they start with a hundredth of the variance of their layer's weights.
 */
export function chunkedHead(options: ChunkedOptions): Head {
  const { chunk, slot = 32, base = false, basis: format = f32 } = options;
  if (!(Number.isInteger(chunk) && chunk > 0))
    throw new ArgumentError(`chunkedHead: chunk must be a size, got ${chunk}`);
  const share = shareOf({ ...options, base });
  return specs => {
    const vars = variances(specs, options);
    const gains = specs.map(({ fan }, i) =>
      Math.sqrt(vars[i] > 0 ? share * vars[i] : (0.01 * fan.gain) / fan.in),
    );
    const offsets = [0];
    for (const n of sizesOf(specs)) offsets.push(offsets[offsets.length - 1] + n);
    const slots = Math.ceil(offsets[specs.length] / chunk);
    return {
      trunkSize: code => code + slot,
      initInput: (key, code, moment) => ({
        slots: mul(normal(key, [slots, slot]), sqrt(mul(moment, code / slot))),
      }),
      input: (params: { slots: Tensor }, code) => {
        const [T, E] = code.shape;
        return concat(
          [broadcastTo(expand(code, 1), [T, slots, E]), broadcastTo(params.slots, [T, slots, slot])],
          -1,
        );
      },
      initOutput: (key, width, moment) => {
        const [forBasis, forBase] = split(key);
        const basis = mul(normal(forBasis, [width, chunk]), rsqrt(mul(moment, width)));
        const shared = vars.map(v => (1 - share) * v);
        return { basis, ...(base && { base: drawBase(forBase, specs, shared) }) };
      },
      weights: (params: { basis: Tensor; base?: Tensor }, hidden) => {
        const bases = basesOf(params.base ?? fixedBase(specs), specs);
        const basis = format.whole(params.basis, chunk);
        return specs.map((spec, i) => {
          const first = Math.floor(offsets[i] / chunk);
          const last = Math.ceil(offsets[i + 1] / chunk);
          const code = mul(slice(hidden, 1, first, last), gains[i]);
          return new ChunkedGenerated(code, basis, spec.shape, bases[i], offsets[i] - first * chunk);
        });
      },
    };
  };
}

export interface LowRankOptions extends HeadOptions {
  /** r: columns of a and rows of b. */
  readonly rank: number;
  /** Factor of a · b; 1 unless given. */
  readonly scale?: number;
}

/**
 * Weights with two axes or more are W[t] = base + scale · a[t] · b[t] with generated a `[T,i,rank]` and b `[T,rank,o]`;
 * those too small to gain, biases among them, are generated as they are, as plain tensors. One projection makes all.
 */
export function lowRankHead(options: LowRankOptions): Head {
  const { rank, scale = 1, base = true, basis: format = f32 } = options;
  if (!(Number.isInteger(rank) && rank > 0))
    throw new ArgumentError(`lowRankHead: rank must be a size, got ${rank}`);
  const share = shareOf({ ...options, base });
  return specs => {
    const vars = variances(specs, options);
    const pieces = specs.map((spec, i) => {
      const out = spec.shape[spec.shape.length - 1];
      const inner = spec.size / out;
      const factored = spec.shape.length >= 2 && rank * (inner + out) < spec.size;
      // Var(W) = scale² · rank · Var(a) · Var(b), with Var(a) = Var(b).
      const factor = Math.sqrt((share * vars[i]) / rank) / scale;
      return factored
        ? {
            shapes: [
              [inner, rank],
              [rank, out],
            ],
            vars: [factor, factor],
          }
        : { shapes: [spec.shape], vars: [share * vars[i]] };
    });
    const shapes: Shape[] = pieces.flatMap(piece => piece.shapes);
    const sizes = shapes.map(sizeOf);
    return {
      ...readsCode,
      initOutput: (key, width, moment) => {
        const [forBasis, forBase] = split(key);
        const drawn = columns(
          forBasis,
          width,
          sizes,
          pieces.flatMap(piece => piece.vars),
        );
        const basis = mul(drawn, rsqrt(mul(moment, width)));
        const shared = vars.map(v => (1 - share) * v);
        return { basis, ...(base && { base: drawBase(forBase, specs, shared) }) };
      },
      weights: (params: { basis: Tensor; base?: Tensor }, hidden) => {
        const T = hidden.shape[0];
        const made = unpack(format.times(hidden, params.basis, total(sizes)), sizes).map((x, i) =>
          reshape(x, [T, ...shapes[i]]),
        );
        const bases = basesOf(params.base ?? fixedBase(specs), specs);
        let next = 0;
        return specs.map((spec, i) => {
          const first = made[next++];
          if (pieces[i].shapes.length === 2)
            return new LowRankGenerated(first, made[next++], scale, bases[i], spec.shape);
          return bases[i] ? add(first, bases[i]) : first;
        });
      },
    };
  };
}
