/** weightloom's public names that are the same in Node and in browsers. */
export type { Backend, DType, TypedArray } from './core/backend.js';
export * from './core/errors.js';
export { type GradOptions, grad, hvp, stopGradient, valueAndGrad, vjp } from './core/grad.js';
export { type Dense, defineOp, type OpSpec } from './core/op.js';
export { sync } from './core/queue.js';
export type { Shape } from './core/shape.js';
export { current, memory, scope, Tensor, use, withBackend } from './core/tensor.js';
export * as tree from './core/tree.js';
export * from './hyper/index.js';
export * as io from './io/index.js';
export { dense, serial } from './nn/layers.js';
export * from './ops/index.js';
export * from './optim/index.js';
export {
  type CommandTime,
  type Compiled,
  type CompileOptions,
  compile,
  type ProgramStats,
} from './program/compile.js';
export { type LinearPlan, type LinearShapes, planLinear, type Strategy } from './program/plan.js';
