/** Finding and loading the native addon. */
import { ArgumentError, NativeLoadError } from '../../core/errors.js';

/** What `native/addon.cpp` exports. Buffers are passed by the addresses it gave for them. */
export interface Addon {
  readonly isa: string;
  /** Instruction sets this machine can run, the best first. */
  readonly isas: readonly string[];
  /** Kernels by their index in command words. */
  readonly kernels: readonly string[];
  /** Scalars by their opcode. */
  readonly scalars: readonly string[];
  /** CPUs this process may use. */
  readonly availableThreads: number;
  /**
   * Runs a list of commands; -1, or the index of the one that failed, those before it having run. Long work, and all
   * work while there is some on the executor, goes to the executor: then -1 less the number of its job.
   */
  run(
    words: Int32Array,
    count: number,
    bases: Float64Array,
    bytes: Float64Array,
    slots: number,
    threads: number,
  ): number;
  /**
   * Checks and keeps a list of commands on slots of these sizes, whose addresses stand in `bases` whenever it is
   * executed. Throws if a command is refused.
   */
  prepare(words: Int32Array, bytes: Float64Array, bases: Float64Array): NativeProgram;
  /** Runs commands [begin, end) of a kept list; -1, or the index of the one that failed. */
  execute(program: NativeProgram, begin: number, end: number, threads: number): number;
  /** True if a run of a kept list takes so long that it must not hold up the event loop. */
  isLong(program: NativeProgram, threads: number): boolean;
  /** Hands commands [begin, end) of a kept list to the executor; the number of its job. */
  submit(program: NativeProgram, begin: number, end: number, threads: number): number;
  /** Makes the executor, one thread that runs jobs in the order given; `settled` is called after each. */
  startExecutor(settled: () => void): void;
  /** Whether the event loop lives on for the executor's sake. */
  holdLoop(on: boolean): void;
  /** The number of the last job that is done. */
  done(): number;
  /** Returns when that job is done. */
  wait(job: number): void;
  /** Jobs that have failed since this was last asked, and why. */
  failures(): [job: number, why: string][];
  /** Why the last run or execute failed. */
  message(): string;
  /** Where a buffer's memory begins: valid while the buffer is alive. */
  address(buffer: ArrayBuffer): number;
  /** Asks for huge pages behind a buffer that has not been written yet. */
  adviseHuge(buffer: ArrayBuffer): void;
}

declare const nativeProgram: unique symbol;
/** A list of commands kept by the addon. */
export interface NativeProgram {
  readonly [nativeProgram]: true;
}

/**
 * Loads the addon: the file that WEIGHTLOOM_NATIVE names, else this package's own build, else its prebuilt binary.
 * Throws NativeLoadError where there is none or WEIGHTLOOM_NATIVE is `off`, ArgumentError where WEIGHTLOOM_ISA names
 * an instruction set that cannot run here.
 */
export async function loadAddon(): Promise<Addon> {
  const [{ createRequire }, { existsSync }, { dirname, join, resolve }, { fileURLToPath }] =
    await Promise.all([import('node:module'), import('node:fs'), import('node:path'), import('node:url')]);
  const named = process.env.WEIGHTLOOM_NATIVE;
  if (named === 'off') throw new NativeLoadError('the native addon is switched off by WEIGHTLOOM_NATIVE=off');
  let root = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(root, 'package.json')) && dirname(root) !== root) root = dirname(root);
  const candidates = named
    ? [resolve(named)]
    : [
        join(root, 'build', 'Release', 'weightloom.node'),
        join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'weightloom.node'),
      ];
  const found = candidates.find(file => existsSync(file));
  if (!found) throw new NativeLoadError(`there is no native addon: looked for ${candidates.join(' and ')}`);
  let addon: Partial<Addon>;
  try {
    addon = createRequire(import.meta.url)(found);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new NativeLoadError(`the native addon ${found} does not load: ${why}`, { cause });
  }
  if (typeof addon.execute !== 'function' || addon.kernels === undefined)
    throw new NativeLoadError(`${found} is not the native addon of this version`);
  const isa = process.env.WEIGHTLOOM_ISA;
  if (isa && isa !== addon.isa)
    throw new ArgumentError(`WEIGHTLOOM_ISA is '${isa}', this machine runs ${addon.isas?.join(', ')}`);
  return addon as Addon;
}
