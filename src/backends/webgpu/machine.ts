/** Work of a known size, by which a device is measured. */
import { KernelError } from '../../core/errors.js';
import { type Call, flat, integer, type Pass, perElement, size, streaming } from './kernel.js';
import { copy } from './launch.js';
import { measureShaders } from './shaders.gen.js';

const withShader = (shader: string, pass: Pass): Pass => ({ ...pass, shader });

/** Elements that a thread of the mode 'read' adds up. */
const READS = 64;

/** What `bench` measures the device by: one pass with a loop in it, or as many passes over memory as are asked for. */
export function machine(call: Call): Pass[] {
  const { ins, outs, attrs } = call;
  const access = [flat('x', ins[0]), flat('y', outs[0], 'raw')];
  const repeats = integer(call, 'repeats');
  const count = size(outs[0]);
  const modes: Record<string, () => Pass> = {
    read: () =>
      withShader(measureShaders.machineRead, perElement(count / READS, { constants: { READS }, access })),
    write: () =>
      withShader(
        measureShaders.machineWrite,
        perElement(count, { access: access.slice(1) }, streaming(count, call.software)),
      ),
    copy: () => copy(call)[0],
  };
  const mode = String(attrs.mode);
  if (mode === 'fma')
    return [withShader(measureShaders.machineFma, perElement(count, { params: { repeats }, access }))];
  if (!Object.hasOwn(modes, mode)) throw new KernelError(`machine: there is no mode '${mode}'`);
  return new Array<Pass>(repeats).fill(modes[mode]());
}
