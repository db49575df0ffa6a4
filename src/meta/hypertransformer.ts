/** Convolutional networks whose every layer is generated from the support set by a transformer. */
import { ArgumentError } from '../core/errors.js';
import type { Shape } from '../core/shape.js';
import { sizeOf } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { conv2d, dense, flatten, type Layer, maxPool, serial, transformer } from '../nn/index.js';
import {
  add,
  broadcastTo,
  concat,
  linear,
  mean,
  normal,
  relu,
  reshape,
  slice,
  split,
  squeeze,
  transpose,
  zeros,
} from '../ops/index.js';
import { classMeans, movedMeans } from './classes.js';
import { conv4, imageNorm } from './embedding.js';
import type { Examples } from './episodes.js';
import type { Learner } from './learner.js';

export interface HyperTransformerOptions {
  /** Filters of each of the generated network's layers; 8 unless given. */
  readonly channels?: number;
  /** Its convolutions, each followed by a 2x2 maximum; 4 unless given. */
  readonly blocks?: number;
  /** 'all' (default): every layer; 'logits': the last alone, filters and norms being learned once for all tasks. */
  readonly generate?: 'all' | 'logits';
  /** What every generator sees of an image beside the network's own activations; `conv4(32)` unless given. */
  readonly features?: Layer;
  /** Width d of the tokens, and layers and heads of each transformer: 32, 1 and 2 unless given. */
  readonly width?: number;
  readonly layers?: number;
  readonly heads?: number;
}

/** Parameters of `hyperTransformer`. */
export interface HyperTransformerParams {
  /** What all tasks share: of the features, of each convolution and its norm, and of the logits. */
  readonly shared: {
    readonly features: any;
    readonly blocks: readonly any[];
    readonly logits: {
      readonly token: any;
      readonly mix: any;
      readonly delta: any;
      readonly logScale: Tensor;
    };
  };
  /** What generates the rest of each convolution and its norm; none where only the logits are generated. */
  readonly generators: readonly any[];
}

/**
 * HyperTransformer (Zhmoginov, Sandler, Vladymyrov, ICML 2022): a small convolutional network per task, generated layer
 * by layer. A layer's transformer reads one token per support image (features of the image, and the mean over pixels of
 * what the layers generated so far make of it) and one learned token per filter, whose output becomes that filter's
 * weights and the scale and shift of its channel's norm, added to those that all tasks share. The logits layer reads one
 * token per class and adds to the class's mean, as `generatedClassifier` does. Query images go through the generated
 * network alone, images of 28 x 28 as 8 numbers.
 *
 * Unlike the paper's, norms are generated. In place of its label encodings a class's token is the mean of its images'
 * tokens, so that the number of classes may vary and their order does not matter; norms are per image, so nothing is
 * transductive. Throws ArgumentError where the blocks leave nothing of an image.
 */
export function hyperTransformer(
  inShape: Shape,
  {
    channels = 8,
    blocks = 4,
    generate = 'all',
    features = conv4(32),
    width = 32,
    layers = 1,
    heads = 2,
  }: HyperTransformerOptions = {},
): Learner<HyperTransformerParams> {
  if (inShape.length !== 3 || Math.min(inShape[0], inShape[1]) < 2 ** blocks)
    throw new ArgumentError(
      `hyperTransformer: ${blocks} blocks need images [H,W,C] of at least ${2 ** blocks} pixels, got [${inShape}]`,
    );
  const block = serial(conv2d(channels, 3), maxPool(2), imageNorm());
  const shapes: Shape[] = [inShape];
  for (let l = 0; l < blocks; l++) shapes.push(block.outShape(shapes[l]));
  const made = sizeOf(shapes[blocks]);
  const [seen] = features.outShape(inShape);
  const mix = transformer(width, { layers, heads });
  const token = dense(width, { gain: 1 });
  // A layer's filters start with the variance of He et al. 2015, a tenth of it generated: mix's rows have variance 1.
  const share = 0.1;
  const fanIn = (l: number) => 9 * shapes[l][2];
  const filters = (l: number) => dense(fanIn(l), { gain: (2 * share) / fanIn(l), bias: false });
  // Of starting variances of generated scales and shifts, 0.003, 0.02, 0.08 and 0.2, 0.02 learned fastest by far.
  const norms = dense(2, { gain: 0.02, bias: false });
  const delta = dense(made + 1, { gain: 0 });
  const flat = flatten(3);

  const generator = {
    init: (key: Tensor, l: number) => {
      const keys = split(key, 5);
      return {
        slots: normal(keys[0], [channels, width]),
        token: token.init(keys[1], [seen + shapes[l][2]]),
        mix: mix.init(keys[2], [width]),
        filters: filters(l).init(keys[3], [width]),
        norms: norms.init(keys[4], [width]),
      };
    },
    /** The layer of each task's network, from the tokens of its support images `[T, S, ...]`. */
    apply: (shared: any, own: any, images: Tensor, l: number) => {
      const [T] = images.shape;
      const slots = broadcastTo(own.slots, [T, channels, width]);
      const tokens = mix.apply(own.mix, concat([slots, token.apply(own.token, images)], 1));
      const rows = slice(tokens, 1, 0, channels);
      const w = reshape(transpose(filters(l).apply(own.filters, rows)), [T, 3, 3, shapes[l][2], channels]);
      const [scale, shift] = [0, 1].map(i => squeeze(slice(norms.apply(own.norms, rows), 2, i, i + 1), 2));
      const [conv, pool, norm] = shared.layers;
      return {
        layers: [
          { ...conv, w: add(conv.w, w) },
          pool,
          { scale: add(norm.scale, scale), shift: add(norm.shift, shift) },
        ],
      };
    },
  };

  /** The task's network: parameters of its blocks, and the support set's embedding. */
  const generateBlocks = ({ shared, generators }: HyperTransformerParams, x: Tensor, features: Tensor) => {
    let z = x;
    const theta = shared.blocks.map((own, l) => {
      const input = intoBlock(z, l);
      const images = concat([features, mean(input, [-3, -2])], -1);
      const layer = generate === 'all' ? generator.apply(own, generators[l], images, l) : own;
      z = block.apply(layer, input);
      return layer;
    });
    return { theta, embedded: flat.apply({}, z) };
  };
  /** The relu before a block rather than behind it: the last one's output may point anywhere. */
  const intoBlock = (z: Tensor, l: number): Tensor => (l === 0 ? z : relu(z));

  const classifier = (
    { shared: { logits } }: HyperTransformerParams,
    features: Tensor,
    z: Tensor,
    y: Tensor,
    ways: number,
  ) => {
    const means = classMeans(z, y, ways);
    const rows = token.apply(logits.token, concat([classMeans(features, y, ways), means], -1));
    const added = delta.apply(logits.delta, mix.apply(logits.mix, rows));
    return movedMeans(means, added, logits.logScale);
  };

  return {
    init(key) {
      const [forFeatures, forToken, forMix, forDelta, ...rest] = split(key, 4 + 2 * blocks);
      const each = <R>(f: (l: number) => R): R[] => Array.from({ length: blocks }, (_, l) => f(l));
      return {
        shared: {
          features: features.init(forFeatures, inShape),
          blocks: each(l => block.init(rest[2 * l], shapes[l])),
          logits: {
            token: token.init(forToken, [seen + made]),
            mix: mix.init(forMix, [width]),
            delta: delta.init(forDelta, [width]),
            logScale: zeros([]),
          },
        },
        generators: generate === 'all' ? each(l => generator.init(rest[2 * l + 1], l)) : [],
      };
    },
    predict(params, { x: shown, y }: Examples, x, ways) {
      const seen = features.apply(params.shared.features, shown);
      const { theta, embedded } = generateBlocks(params, shown, seen);
      const { w, b } = classifier(params, seen, embedded, y, ways);
      const z = theta.reduce((h, own, l) => block.apply(own, intoBlock(h, l)), x);
      return linear(flat.apply({}, z), w, b);
    },
  };
}
