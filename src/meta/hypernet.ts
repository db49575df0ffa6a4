import { scope } from '../core/tensor.js';
import type { Hypernet, HypernetParams, Support } from '../hyper/index.js';
import type { Examples } from './episodes.js';
import type { Learner } from './learner.js';

/**
 * A hypernetwork conditioned on the support set as a learner: the network it generates for a task answers the task's
 * query, without inner steps. `example` gives typical support sets, by which the head's starting scale is set.
 */
export const hypernetLearner = (
  hyper: Hypernet<Support>,
  example?: () => Examples,
): Learner<HypernetParams> => ({
  init: key => scope(() => hyper.init(key, example?.())),
  predict: (phi, support, x) => hyper.target.apply(hyper.generate(phi, hyper.encode(phi, support)), x),
});
