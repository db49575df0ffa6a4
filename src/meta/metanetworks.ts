/** A network and its weights, both generated for a task: an architecture from a cell space, then weights for it. */
import { ArgumentError } from '../core/errors.js';
import type { Shape } from '../core/shape.js';
import { sizeOf } from '../core/shape.js';
import { scope, type Tensor } from '../core/tensor.js';
import { joinRows } from '../hyper/condition.js';
import {
  type Encoder,
  fullHead,
  type HypernetParams,
  hypernet,
  type Posterior,
  type Support,
  type TargetShapes,
  variational,
} from '../hyper/index.js';
import {
  type Architecture,
  architectureEntropy,
  type Cell,
  dense,
  initParams,
  klNormal,
  type Layer,
  ParamSpec,
  serial,
  transformer,
} from '../nn/index.js';
import {
  add,
  concat,
  materialise,
  mean,
  mul,
  normal,
  relu,
  reshape,
  softmax,
  split,
  sum,
} from '../ops/index.js';
import { type AdaptOptions, adapt } from './adapt.js';
import { type Episodes, type Examples, taskLosses } from './episodes.js';
import { keyOf, type Learner } from './learner.js';
import { type MamlOptions, pretrained } from './maml.js';

export interface MetaNetworksOptions {
  /** The space of architectures; the network is a dense layer to `width`, the cell, and a dense layer. */
  readonly cell: Cell;
  /** 16 unless given. */
  readonly width?: number;
  /** Numbers of the weight generator's latent code; 16 unless given. */
  readonly latent?: number;
  /** Width of tokens, and of the layer before the weights; 32 and 64 unless given. */
  readonly token?: number;
  readonly hidden?: number;
  /** Gradient steps on a task's weights and architecture before it answers; none unless given. */
  readonly inner?: AdaptOptions;
  /** Weight of the divergence of the latent code from a standard normal; 1e-4 unless given. */
  readonly divergence?: number;
  /** Weight of the architectures' entropy: how much they are pushed to decide; 0 unless given. */
  readonly entropy?: number;
}

/** Parameters of `metaNetworks`; the two parts may have optimisers of their own (`byPart`). */
export interface MetaNetworksParams {
  /** The network generator: from a task's rows to alpha. */
  readonly network: { readonly rows: any; readonly alpha: any };
  /** The weight generator: from rows and alpha to weights. */
  readonly weights: HypernetParams;
}

/** What `metaNetworks` makes for T tasks. */
export interface GeneratedNetworks {
  /** [T, edges, ops]. */
  readonly alpha: Tensor;
  /** The network's parameters but for alpha, generated. */
  readonly theta: any;
  readonly posterior: Posterior;
}

/** A learner that generates both a network and its weights. */
export interface MetaNetworks extends Learner<MetaNetworksParams> {
  /** The network all architectures are mixed in; its parameters are `layers.1.alpha` and what is generated. */
  readonly target: Layer<{ layers: any[] }>;
  /** Alpha of each task `[T, edges, ops]`. */
  architectures(params: MetaNetworksParams, support: Examples): Tensor;
  /** The networks of tasks, for architectures other than their own if alpha is given; drawn if a key is. */
  generate(
    params: MetaNetworksParams,
    support: Examples,
    options?: { alpha?: Tensor; key?: Tensor },
  ): GeneratedNetworks;
  /** One task's network as a plain layer, of the operations of an architecture alone, with the parameters it needs. */
  discretise(theta: any, architecture: Architecture): { layer: Layer; params: any };
}

const ALPHA = 'layers.1.alpha';

/** The network of a cell for rows that are vectors: its parameters are `{ layers: [dense, cell, dense] }`. */
const networkOf = (cell: Cell, width: number, outSize: number) =>
  serial(dense(width, { gain: 1 }), cell, dense(outSize, { gain: 1 }));

/** What the weight generator reads: rows of the support set as tokens, and the softmax of alpha. */
interface TaskAndArchitecture {
  /** [T, S, token]. */
  readonly tokens: Tensor;
  /** [T, edges, ops]. */
  readonly soft: Tensor;
}

/** Rows and edges of an architecture as one set of tokens, read by attention: the mean of what it makes of them. */
const readBoth =
  ({ edges, ops }: Cell, token: number) =>
  (_: TargetShapes): Encoder<TaskAndArchitecture> => {
    const edge = dense(token, { gain: 1 });
    const mix = transformer(token, { layers: 1, heads: 2 });
    return {
      size: token,
      params: {
        edge: edge.params([ops.length]),
        place: new ParamSpec([edges.length, token], 'weight', { in: 1, out: 1, gain: 1 }),
        mix: mix.params([token]),
      },
      encode: (params, { tokens, soft }) => {
        const architecture = add(edge.apply(params.edge, soft), params.place);
        return mean(mix.apply(params.mix, concat([tokens, architecture], 1)), 1);
      },
      example: (key, tasks) => {
        const [forTokens, forAlpha] = split(key);
        return {
          tokens: normal(forTokens, [tasks, 10, token]),
          soft: softmax(normal(forAlpha, [tasks, edges.length, ops.length])),
        };
      },
    };
  };

/**
 * MetaNetworks: a network generator reads a task's support set and chooses among the operations of a cell, softly; a
 * weight generator, a variational autoencoder, reads support set and architecture together by attention, draws a latent
 * code (its mean when it answers) and decodes it to the weights of all operations. Weights and architecture may then
 * take gradient steps on the support set. The outer loss is that of the query set, with the code's divergence and the
 * architectures' entropy; its gradient reaches both generators, through the inner steps.
 *
 * For rows that are vectors, with values or labels for targets. Throws ArgumentError for others.
 */
export function metaNetworks(
  inShape: Shape,
  outSize: number,
  {
    cell,
    width = 16,
    latent = 16,
    token = 32,
    hidden = 64,
    inner,
    divergence = 1e-4,
    entropy = 0,
  }: MetaNetworksOptions,
): MetaNetworks {
  if (inShape.length !== 1)
    throw new ArgumentError(`metaNetworks: expected rows that are vectors, got [${inShape}]`);
  const target = networkOf(cell, width, outSize);
  const rowWidth = sizeOf(inShape) + outSize;
  const rows = serial(dense(token), relu, dense(token, { gain: 1 }));
  const [edges, ops] = [cell.edges.length, cell.ops.length];
  // Architectures start nearly undecided, but not alike.
  const toAlpha = dense(edges * ops, { gain: 0.01 });
  const condition = variational(readBoth(cell, token), latent);
  const encoder = condition({ inShape, outShape: [outSize] });
  const hyper = hypernet<TaskAndArchitecture>({
    target,
    inShape,
    condition,
    trunk: dense(hidden),
    head: fullHead(),
    keep: path => path === ALPHA,
  });

  const tokensOf = (params: MetaNetworksParams, support: Support) =>
    rows.apply(params.network.rows, joinRows(support, 2, outSize));
  const alphaOf = (params: MetaNetworksParams, tokens: Tensor) =>
    reshape(toAlpha.apply(params.network.alpha, mean(tokens, 1)), [tokens.shape[0], edges, ops]);

  const generate: MetaNetworks['generate'] = (params, support, { alpha: given, key } = {}) => {
    const tokens = tokensOf(params, support);
    const alpha = given ?? alphaOf(params, tokens);
    const posterior = encoder.posterior(params.weights.condition, { tokens, soft: softmax(alpha) });
    const weights = { ...params.weights, kept: { [ALPHA]: alpha } };
    return { alpha, posterior, theta: hyper.generate(weights, encoder.sample(posterior, key)) };
  };
  const answer = (theta: any, { x: shown, y }: Examples, x: Tensor): Tensor => {
    if (!inner || inner.steps === 0) return target.apply(theta, x);
    const loss = (own: any) => sum(taskLosses(target.apply(own, shown), y));
    return target.apply(adapt(loss, materialise(theta), inner), x);
  };

  return {
    random: true,
    target,
    generate,
    architectures: (params, support) => alphaOf(params, tokensOf(params, support)),
    discretise: (theta, architecture) => {
      const layer = serial(
        dense(width, { gain: 1 }),
        cell.discrete(architecture),
        dense(outSize, { gain: 1 }),
      );
      const [into, mixed, out] = theta.layers;
      return { layer, params: { layers: [into, cell.restrict(mixed, architecture), out] } };
    },
    init: key =>
      scope(() => {
        const [forRows, forAlpha, forWeights] = split(key, 3);
        const { kept: _, ...weights } = hyper.init(forWeights);
        return {
          network: {
            rows: initParams(rows.params([rowWidth]), forRows),
            alpha: initParams(toAlpha.params([token]), forAlpha),
          },
          weights: { ...weights, kept: {} },
        };
      }),
    loss(params, episodes: Episodes) {
      const { support, query } = episodes;
      const { alpha, theta, posterior } = generate(params, support, { key: keyOf(episodes) });
      const parts = [
        mean(taskLosses(answer(theta, support, query.x), query.y)),
        mul(klNormal(posterior.mean, posterior.logVar), divergence),
        ...(entropy === 0 ? [] : [mul(architectureEntropy(alpha), entropy)]),
      ];
      return parts.reduce((a, b) => add(a, b));
    },
    predict: (params, support, x) => answer(generate(params, support).theta, support, x),
  };
}

/**
 * The comparison: every task searches the same space by itself. A network of the cell is trained on all tasks' rows as
 * if they were one; a task then takes gradient steps on weights and architecture together, on its support set alone
 * (Liu, Simonyan, Yang, ICLR 2019, of first order). What that costs is in `costReport` of `predict`.
 */
export const architectureSearch = (
  inShape: Shape,
  outSize: number,
  { cell, width = 16 }: Pick<MetaNetworksOptions, 'cell' | 'width'>,
  options: Omit<MamlOptions, 'firstOrder'>,
): Learner => pretrained(networkOf(cell, width, outSize), inShape, options);

/** The loss of each task of a batch `[T]`, for a table of what multi-task training does to each. */
export const lossTable = <P>(
  learner: Learner<P>,
  params: P,
  { support, query }: Episodes,
  outSize: number,
): Tensor => taskLosses(learner.predict(params, support, query.x, outSize), query.y);
