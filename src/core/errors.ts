/** Stable identifiers of every failure the library reports on purpose. */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_GRAPH'
  | 'ERR_DISPOSED'
  | 'ERR_SCOPE'
  | 'ERR_PROGRAM'
  | 'ERR_BACKEND'
  | 'ERR_KERNEL'
  | 'ERR_MEMORY'
  | 'ERR_MEMORY_CONTRACT'
  | 'ERR_DEVICE_LOST'
  | 'ERR_DEVICE_LIMIT'
  | 'ERR_NO_ADAPTER'
  | 'ERR_NATIVE_LOAD'
  | 'ERR_CHECKPOINT'
  | 'ERR_DATA'
  | 'ERR_NAN'
  | 'ERR_ARGUMENT';

/** Base of every error thrown on purpose. Test on `code`, never on the text. */
export class WeightloomError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = new.target.name;
  }
}

type Failure = new (message: string, options?: ErrorOptions) => WeightloomError;
const named = (code: ErrorCode): Failure =>
  class extends WeightloomError {
    constructor(message: string, options?: ErrorOptions) {
      super(code, message, options);
    }
  };

/** Shapes do not fit. The text names the op, the operands, their shapes and the axis. */
export class ShapeError extends named('ERR_SHAPE') {}
/** An op was given a dtype it does not take; there is no promotion. */
export class DTypeError extends named('ERR_DTYPE') {}
/** A derivative was asked for that does not exist, or a graph would be cut silently. */
export class GraphError extends named('ERR_GRAPH') {}
/** A tensor was used after its memory was given back or donated. */
export class DisposedError extends named('ERR_DISPOSED') {}
/** A scope was given asynchronous work. */
export class ScopeError extends named('ERR_SCOPE') {}
/** A compiled step broke its contract: capture, donation or replay. */
export class ProgramError extends named('ERR_PROGRAM') {}
/** No backend is in use, or tensors of two backends met in one op. */
export class BackendError extends named('ERR_BACKEND') {}
/** A kernel is missing on this backend, or failed while it ran. */
export class KernelError extends named('ERR_KERNEL') {}
/** Device memory is past its budget. */
export class MemoryError extends named('ERR_MEMORY') {}
/** A step cannot run within the promised `maxBytes`. */
export class MemoryContractError extends named('ERR_MEMORY_CONTRACT') {}
/** The device was lost; what it held is gone. */
export class DeviceLostError extends named('ERR_DEVICE_LOST') {}
/** The work needs more than a limit of the device allows. */
export class DeviceLimitError extends named('ERR_DEVICE_LIMIT') {}
/** No WebGPU adapter could be had. */
export class NoAdapterError extends named('ERR_NO_ADAPTER') {}
/** The native addon could not be loaded. */
export class NativeLoadError extends named('ERR_NATIVE_LOAD') {}
/** A checkpoint is damaged or does not fit what it is loaded into. */
export class CheckpointError extends named('ERR_CHECKPOINT') {}
/** A data file is missing, damaged or of another format. */
export class DataError extends named('ERR_DATA') {}
/** A loss or gradient stopped being finite. */
export class NaNError extends named('ERR_NAN') {}
/** A function or the command line was given something it does not take. */
export class ArgumentError extends named('ERR_ARGUMENT') {}
