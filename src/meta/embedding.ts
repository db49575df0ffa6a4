import type { Shape } from '../core/shape.js';
import type { Tensor } from '../core/tensor.js';
import { conv2d, defineLayer, flatten, type Layer, maxPool, ParamSpec, serial } from '../nn/index.js';
import { add, mul, normalise, relu } from '../ops/index.js';
import { vectorFor } from '../ops/linear.js';

const none = { in: 1, out: 1, gain: 1 };

/**
 * Each image normalised over its own pixels and channels, then scaled and shifted per channel: group normalisation
 * (Wu and He, ECCV 2018) with one group. An image's embedding does not depend on the others of its batch, so nothing
 * is learned from query images at test time (evaluation is not transductive) and there are no running averages.
 */
export const imageNorm = ({ eps = 1e-5 } = {}): Layer<{ scale: Tensor; shift: Tensor }> =>
  defineLayer({
    params: (inShape: Shape) => {
      const channels = inShape.slice(-1);
      return { scale: new ParamSpec(channels, 'scale', none), shift: new ParamSpec(channels, 'bias', none) };
    },
    outShape: inShape => inShape,
    apply: ({ scale, shift }, x) => {
      const [y] = normalise(x, [-3, -2, -1], eps);
      return add(mul(y, vectorFor(x, scale)), vectorFor(x, shift));
    },
  });

/**
 * The four-block embedding of few-shot learning (Vinyals et al., NeurIPS 2016): 3x3 convolution, 2x2 maximum, norm and
 * relu, four times, flattened; the last block has no relu, so that an embedding may point anywhere. 28 x 28 pixels
 * become `channels` numbers. The maximum comes before the norm, not after the relu, which costs a quarter of the
 * memory traffic. The norm is `imageNorm`, so that nothing is transductive; `norm: batchNorm` is the choice of MAML and
 * Reptile "with transduction", where a query image is seen beside the others of its task.
 */
export function conv4(channels: number, { norm = imageNorm }: { norm?: () => Layer<any> } = {}): Layer {
  const block = () => [conv2d(channels, 3), maxPool(2), norm()];
  return serial(...block(), relu, ...block(), relu, ...block(), relu, ...block(), flatten(3));
}
