/** File formats, from and to bytes in memory; what reads and writes files is in `weightloom/node`. */
export { type NpyArray, readNpy, writeNpy } from './npy.js';
export {
  readSafetensors,
  type Safetensors,
  type StoredTensor,
  type WritableTensor,
  writeSafetensors,
} from './safetensors.js';
