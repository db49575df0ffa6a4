/**
 * Learning rates as functions of the number of updates already made. They are composed of ops on the counter in the
 * optimiser's state, so a compiled step needs no new program when the rate changes.
 */
import { ArgumentError } from '../core/errors.js';
import type { Tensor } from '../core/tensor.js';
import { add, cos, lt, min, mul, neg, type Value, where } from '../ops/index.js';

/** `step` (f32, scalar) counts updates from 0; the result is the learning rate of the update to come. */
export type Schedule = (step: Tensor) => Value;

/** A number stands for the schedule that always returns it. */
export type LearningRate = number | Schedule;

function checkSteps(name: string, steps: number): void {
  if (!(Number.isSafeInteger(steps) && steps > 0))
    throw new ArgumentError(`${name}: steps must be a whole number above 0, got ${steps}`);
}

/** The rate of the update that follows `step` others. */
export const rateAt = (rate: LearningRate, step: Tensor): Value =>
  typeof rate === 'number' ? rate : rate(step);

/** The rate with its sign turned: updates go against the gradient. */
export function descentAt(rate: LearningRate, step: Tensor): Value {
  const now = rateAt(rate, step);
  return typeof now === 'number' ? -now : neg(now);
}

/** Always `rate`. */
export const constantSchedule =
  (rate: number): Schedule =>
  () =>
    rate;

/** From `start` to `end` in `steps` updates on a straight line, then `end`. */
export function linearSchedule(start: number, end: number, steps: number): Schedule {
  checkSteps('linearSchedule', steps);
  return step => add(start, mul((end - start) / steps, min(step, steps)));
}

/**
 * From `peak` to `peak * floor` in `steps` updates along half a cosine, then constant (Loshchilov and Hutter, "SGDR:
 * stochastic gradient descent with warm restarts", ICLR 2017, without restarts).
 */
export function cosineSchedule(peak: number, steps: number, { floor = 0 } = {}): Schedule {
  checkSteps('cosineSchedule', steps);
  const half = 0.5 * peak * (1 - floor);
  return step => add(peak * floor + half, mul(half, cos(mul(Math.PI / steps, min(step, steps)))));
}

/**
 * `steps` updates on a straight line up to the first rate of `then`, which begins after them: update number
 * `steps - 1` is the first with the full rate.
 */
export function warmupSchedule(steps: number, then: LearningRate): Schedule {
  checkSteps('warmupSchedule', steps);
  return step => {
    const after = rateAt(then, where(lt(step, steps), 0, add(step, -steps)));
    return mul(after, min(mul(add(step, 1), 1 / steps), 1));
  };
}
