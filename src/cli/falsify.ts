/** A way to see that checks can fail: a backend on which one op is wrong. */
import type { Attrs, Backend, Command, DType, Storage, View } from '../core/backend.js';
import { KernelFailure } from '../core/backend.js';
import { ArgumentError } from '../core/errors.js';
import { opNamed } from '../core/op.js';
import { sizeOf } from '../core/shape.js';
import { denseView } from '../core/tensor.js';

/** The same backend, but every result of `op` is 1 too large. Replayed programs are not touched. */
export function falsify(backend: Backend, op: string): Backend {
  const run = (commands: readonly Command[]) => {
    commands.forEach((command, index) => {
      try {
        backend.run([command]);
        if (command.op === op) for (const out of command.outs) addOne(backend, out);
      } catch (error) {
        throw new KernelFailure(index, error instanceof KernelFailure ? error.cause : error);
      }
    });
  };
  return {
    name: backend.name,
    limits: backend.limits,
    has: kernel => backend.has(kernel),
    run,
    prepare: plan => backend.prepare(plan),
    write: (storage, values) => backend.write(storage, values),
    read: view => backend.read(view),
    readSync: view => backend.readSync(view),
    free: storage => backend.free(storage),
    sync: () => backend.sync(),
    describe: () => backend.describe(),
    dispose: () => backend.dispose(),
  };
}

/** `falsify` as WEIGHTLOOM_PERTURB=BACKEND:OP asks for it; the backend itself where it does not. Throws ArgumentError. */
export function falsifiedBy(setting: string | undefined, backend: Backend): Backend {
  if (!setting) return backend;
  const [, name, op] = /^(\w+):(\w+)$/.exec(setting) ?? [];
  if (!op) throw new ArgumentError(`WEIGHTLOOM_PERTURB is '${setting}'; expected BACKEND:OP`);
  return backend.name === name ? falsify(backend, op) : backend;
}

const plusOne: Attrs = opNamed('add').kernelAttrs!({ numbers: [null, 1] }, []);

function addOne(backend: Backend, out: View): void {
  const run = (kernel: string, to: View, from: View, attrs: Attrs = {}) =>
    backend.run([{ kernel, op: 'falsify', outs: [to], ins: [from], attrs }]);
  if (out.storage.dtype === 'f32') {
    run('elementwise', out, out, plusOne);
    return;
  }
  const real = temporary(backend, 'f32', out);
  run('cast', real, out);
  run('elementwise', real, real, plusOne);
  run('cast', out, real);
  backend.free(real.storage);
}

function temporary(backend: Backend, dtype: DType, like: View): View {
  const size = sizeOf(like.shape);
  const storage: Storage = { id: -1, dtype, size, backend, memory: null, generation: 0, dead: null };
  return denseView(storage, like.shape);
}
