/**
 * The contract between the core and the machines that run kernels. A backend knows kernels (names and strided
 * views), never ops, gradients or tensors. It is about ten members so that a new one can be written in a day.
 */

export type DType = 'f32' | 'i32' | 'u32';
export type TypedArray = Float32Array | Float64Array | Int32Array | Uint32Array;

/**
 * A handle on `size` elements of one dtype. Nothing is allocated when it is made: the backend binds `memory` when
 * the first command that writes it is run. `memory` belongs to the backend; nobody else looks into it.
 */
export interface Storage {
  readonly id: number;
  readonly dtype: DType;
  readonly size: number;
  readonly backend: Backend;
  memory: unknown;
  /** Raised when a compiled step takes the memory over; views made before it are stale. */
  generation: number;
  /** Why it may not be used any more, or null. */
  dead: string | null;
}

/** A strided window on a storage. Strides and offset count elements; a stride of 0 broadcasts. */
export interface View {
  readonly storage: Storage;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  /** The storage's generation this view belongs to. */
  readonly generation: number;
}

/**
 * One scalar function of an elementwise expression: arguments and result are f32 values.
 * `f` is the meaning (and what `ref` runs); `wgsl` the expression over the parameters `a`, `b`, `c`.
 * The native executor finds its own loop by `name`.
 */
export interface Scalar {
  readonly name: string;
  readonly arity: number;
  readonly f: (a: number, b: number, c: number) => number;
  readonly wgsl: string;
}

/**
 * A pure elementwise program in SSA form. Registers 0..inputs-1 hold the inputs; instruction j defines register
 * inputs+j. An argument r >= 0 reads register r, r < 0 reads `immediates[-1-r]`. `outs` are the registers stored.
 * Every instruction's result is rounded to the storage type.
 */
export interface Expr {
  readonly inputs: number;
  readonly immediates: readonly number[];
  readonly code: readonly Instruction[];
  readonly outs: readonly number[];
}
export interface Instruction {
  readonly scalar: Scalar;
  readonly args: readonly number[];
}

/** Whatever a kernel must know beside its operands: numbers, strings, booleans, arrays of them, an Expr. */
export type Attrs = Readonly<Record<string, unknown>>;

/** One kernel call. `op` is the name the user knows, for messages and counts; `kernel` the name backends know. */
export interface Command {
  readonly kernel: string;
  readonly op: string;
  readonly outs: readonly View[];
  readonly ins: readonly View[];
  readonly attrs: Attrs;
}

/** What the fuser and the memory planner must respect. */
export interface BackendLimits {
  /** Storage bindings one kernel may use (inputs and outputs), Infinity where there is no limit. */
  readonly maxBindings: number;
  /** 'offsets': all temporaries of a program live in one arena; 'buffers': each in a buffer of its own. */
  readonly packing: 'offsets' | 'buffers';
  /** Byte budget of memory the garbage collector does not see; undefined where storages are JavaScript memory. */
  readonly deviceMemory?: number;
  /**
   * Kernels that can take `attrs.epilogue`, an Expr over (their result, extra ins...) run before the store; matmulUpdate:
   * matmul's may store several results, and where an extra in of the same layout lies.
   */
  readonly epilogue: ReadonlySet<string>;
  /** Kernels that take `attrs.prologue`, an Expr over their ins for what they consume; reduceColumns: by attrs.column. */
  readonly prologue: ReadonlySet<string>;
}

/** Where a compiled step's storages live. `Storage` objects are identities here; `memory` is not used. */
export interface Plan {
  readonly commands: readonly Command[];
  /** Storages bound anew at each run, in the order `run` receives them. */
  readonly externals: readonly Storage[];
  /** Byte sizes of the scratch buffers (one, for packing 'offsets'). */
  readonly buffers: readonly number[];
  /** Scratch place of every other storage, in bytes; offsets are multiples of 64. */
  readonly places: ReadonlyMap<Storage, { buffer: number; offset: number }>;
}

/**
 * A prepared plan. `run` queues it behind all earlier work; every external must be bound or is bound by it. A backend
 * that can tell writes the milliseconds each command took into `times`.
 */
export interface Executable {
  run(externals: readonly Storage[], times?: Float64Array): void;
  dispose(): void;
}

export interface Backend {
  readonly name: string;
  readonly limits: BackendLimits;
  /** False if a kernel cannot run here at all. Asked at once, so that the error points at the user's line. */
  has(kernel: string): boolean;
  /**
   * Runs commands in order, binding memory of unbound outputs. Throws KernelFailure at the first that fails. Work may
   * go on when it returns: reads see it done, and throw or reject with KernelError what failed by then.
   */
  run(commands: readonly Command[]): void;
  /** Makes a plan ready to be replayed. */
  prepare(plan: Plan): Executable;
  /** Copies host values into a storage (length equals its size), after all work run so far. Binds it if needed. */
  write(storage: Storage, values: TypedArray): void;
  /** Reads a view as a dense array, as of now in queue order. Resolves in a macrotask. */
  read(view: View): Promise<TypedArray>;
  /** The same at once; throws a BackendError that names `read` where a device makes that impossible. */
  readSync(view: View): TypedArray;
  /** Gives memory back. Work already run still sees it. */
  free(storage: Storage): void;
  /** Resolves when all work run so far is done. */
  sync(): Promise<void>;
  /** What `info` prints: isa, threads, adapter, limits, counters. */
  describe(): Record<string, unknown>;
  /** Releases the device. Tensors of this backend are dead afterwards. */
  dispose(): void;
}

/** Thrown by `Backend.run`: commands before `index` have run, the one at `index` has not. */
export class KernelFailure extends Error {
  constructor(
    readonly index: number,
    override readonly cause: unknown,
  ) {
    super(cause instanceof Error ? cause.message : String(cause));
  }
}
