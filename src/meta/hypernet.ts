/** Learners whose tasks get a network of their own from a hypernetwork. */
import { scope, type Tensor } from '../core/tensor.js';
import type { Hypernet, HypernetParams, Support } from '../hyper/index.js';
import { materialise, sum } from '../ops/index.js';
import { type AdaptOptions, adapt } from './adapt.js';
import { type Examples, taskLosses } from './episodes.js';
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

/**
 * A hypernetwork whose generated weights are where a task's gradient steps on its support set begin: generate, then
 * fine-tune. Every task's weights are made whole.
 */
export const fineTuned = (
  hyper: Hypernet<Support>,
  options: AdaptOptions,
  example?: () => Examples,
): Learner<HypernetParams> => ({
  ...hypernetLearner(hyper, example),
  predict(phi, support, x) {
    const start = materialise(hyper.generate(phi, hyper.encode(phi, support)));
    const loss = (theta: unknown) => sum(taskLosses(hyper.target.apply(theta, support.x), support.y));
    return hyper.target.apply(adapt(loss, start, options), x);
  },
});

/**
 * Adaptation in the space of codes, after LEO (Rusu et al., ICLR 2019): the code read off the support set takes
 * gradient steps on the support loss of the network it generates; no task's weights are ever steps of their own.
 */
export const latentLearner = (
  hyper: Hypernet<Support>,
  options: AdaptOptions,
  example?: () => Examples,
): Learner<HypernetParams> => ({
  ...hypernetLearner(hyper, example),
  predict(phi, support, x) {
    const answer = (code: Tensor, rows: Tensor) => hyper.target.apply(hyper.generate(phi, code), rows);
    const loss = (code: Tensor) => sum(taskLosses(answer(code, support.x), support.y));
    return answer(adapt(loss, hyper.encode(phi, support), options), x);
  },
});
