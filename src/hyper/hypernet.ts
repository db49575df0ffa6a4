import { ArgumentError, ShapeError } from '../core/errors.js';
import { type Shape, show } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import * as tree from '../core/tree.js';
import { type ApplyOptions, initParams, type Layer, type ParamSpec } from '../nn/index.js';
import { materialise, mean, relu, split, square } from '../ops/index.js';
import type { Condition, Encoder } from './condition.js';
import type { Head } from './head.js';

export interface HypernetOptions<I> {
  /** The network whose weights are generated; it owns no parameters. */
  readonly target: Layer;
  /** Shape of one row of the target's input. */
  readonly inShape: Shape;
  readonly condition: Condition<I>;
  /** From the code to the hidden code the head reads; the code itself unless given. */
  readonly trunk?: Layer;
  /** Follows the trunk; relu unless given (a trunk and a head without one between them would be one linear map). */
  readonly activation?: (x: Tensor) => Tensor;
  readonly head: Head;
  /** 'generated' (default): weights as they are generated, to be applied by the cheapest plan; 'tensors': materialised. */
  readonly weightsAs?: 'generated' | 'tensors';
  /** Leaves of the target, by path (`layers.0.w`), that are learned once for all tasks instead of generated. */
  readonly keep?: (path: string) => boolean;
}

/** Parameters of a hypernetwork: a plain tree of tensors. */
export interface HypernetParams {
  readonly condition: any;
  readonly trunk: any;
  readonly head: any;
  /** Leaves of the target that are not generated, by path. */
  readonly kept: Readonly<Record<string, Tensor>>;
}

export interface Hypernet<I = any> {
  readonly target: Layer;
  /** E. */
  readonly codeSize: number;
  /** Weights generated per task. */
  readonly weightCount: number;
  /**
   * Fresh parameters. The head's starting variance is set by the mean square of the codes it will read, measured on
   * the device: on `example` if given (a typical input of `encode`), else on standard normal input.
   */
  init(key: Tensor, example?: I): HypernetParams;
  /** The code of each task, `[T,E]`: small, and all `generate` needs. */
  encode(phi: HypernetParams, input: I, options?: ApplyOptions): Tensor;
  /** The target's parameters for each task of a code `[T,E]`: a tree of weights with a leading task axis. */
  generate(phi: HypernetParams, code: Tensor, options?: ApplyOptions): any;
}

const exampleTasks = 64;

/**
 * A network that generates the weights of another one. Parameters are one tree, and so are the weights:
 *
 * ```ts
 * const hyper = hypernet({ target, inShape: [1], condition: setEncoder([64, 64]), trunk: dense(64), head: fullHead() });
 * const phi = hyper.init(key(0));
 * const theta = hyper.generate(phi, hyper.encode(phi, support));
 * const y = target.apply(theta, query.x);
 * ```
 *
 * Throws ShapeError where the target does not take `inShape`, ArgumentError if nothing is left to generate.
 */
export function hypernet<I>(options: HypernetOptions<I>): Hypernet<I> {
  const { target, inShape, trunk, activation = relu, weightsAs = 'generated', keep = () => false } = options;
  const specs = target.params(inShape);
  const entries = tree.entries<ParamSpec>(specs);
  const generated = entries.filter(([path]) => !keep(path)).map(([, spec]) => spec);
  const kept = Object.fromEntries(entries.filter(([path]) => keep(path)));
  if (generated.length === 0) throw new ArgumentError('hypernet: the target has no weights to generate');
  const encoder: Encoder<I> = options.condition({ inShape, outShape: target.outShape(inShape) });
  const head = options.head(generated);
  const trunkIn = [head.trunkSize(encoder.size)];
  const [width] = trunk ? trunk.outShape(trunkIn) : trunkIn;

  const hiddenOf = (
    phi: Pick<HypernetParams, 'trunk' | 'head'>,
    code: Tensor,
    how?: ApplyOptions,
  ): Tensor => {
    const input = head.input(phi.head, code);
    return trunk ? activation(trunk.apply(phi.trunk, input, how)) : input;
  };

  return {
    target,
    codeSize: encoder.size,
    weightCount: generated.reduce((n, spec) => n + spec.size, 0),
    init: (key, example) => {
      const keys = split(key, 6);
      const condition = initParams(encoder.params, keys[0]);
      const input = example ?? encoder.example(keys[3], exampleTasks);
      const code = encoder.encode(condition, input, { key: keys[3] });
      const before = {
        condition,
        trunk: trunk ? trunk.init(keys[1], trunkIn) : {},
        head: head.initInput(keys[2], encoder.size, mean(square(code))),
      };
      const moment = mean(square(hiddenOf(before, code)));
      return {
        ...before,
        head: { ...before.head, ...head.initOutput(keys[4], width, moment) },
        kept: initParams(kept, keys[5]),
      };
    },
    encode: (phi, input, how) => encoder.encode(phi.condition, input, how),
    generate: (phi, code, how) => {
      if (code.rank !== 2 || code.shape[1] !== encoder.size)
        throw new ShapeError(`generate: the code must be [T,${encoder.size}], got ${show(code.shape)}`);
      const weights = head.weights(phi.head, hiddenOf(phi, code, how));
      let next = 0;
      const theta = tree.mapWithPath(path => phi.kept[path] ?? weights[next++], specs);
      return weightsAs === 'tensors' ? materialise(theta) : theta;
    },
  };
}
