/** `weightloom/report`: what steps cost, and where graphs are cut. */
export {
  type Cost,
  type CostOptions,
  costReport,
  costText,
  type KernelCost,
  rooflineSvg,
} from './program/cost.js';
export { type ParameterTrace, trace, traceText } from './program/trace.js';
