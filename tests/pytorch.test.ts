/** Weights of PyTorch, in safetensors: a file that PyTorch 1.13 wrote, with an input and what its network answered. */
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { dense, init, relu, serial, tensor, transpose } from '../src/index.js';
import { loadSafetensors } from '../src/io/files.js';
import { layerNorm } from '../src/nn/index.js';

test('weights saved by PyTorch are read, and answer as they did there', async () => {
  await init({ backend: 'ref', float: 64 });
  const { tensors } = await loadSafetensors(join(import.meta.dirname, 'fixtures/pytorch.safetensors'));
  const named = (name: string) => {
    const { data, shape } = tensors.get(name)!;
    return tensor(data as Float32Array, shape);
  };
  const net = serial(dense(5), relu, layerNorm(), dense(2));
  const linear = (at: number) => ({ w: transpose(named(`${at}.weight`)), b: named(`${at}.bias`) });
  const norm = { scale: named('2.weight'), shift: named('2.bias') };
  const found = net.apply({ layers: [linear(0), {}, norm, linear(3)] }, named('input')).dataSync();
  const expected = named('output').dataSync();
  expect(expected.length).toBe(8);
  expected.forEach((y, i) => {
    expect(Math.abs(found[i] - y)).toBeLessThan(1e-5);
  });
});
