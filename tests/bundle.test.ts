/** The package as bundlers for browsers see it: nothing of Node in it, and small. */
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { bundle } from './browser-support.js';

const KB = 1024;
const size = (code: Uint8Array) => gzipSync(code, { level: 9 }).length;

test('the whole library is at most 80 KB', async () => {
  const code = await bundle(`export * from 'weightloom';`);
  expect(size(code)).toBeLessThanOrEqual(80 * KB);
  expect(size(code)).toBeGreaterThan(40 * KB);
  // What is not bundled would have to be fetched; `require` and `import()` name what a browser has not.
  expect(new TextDecoder().decode(code)).not.toMatch(/\bimport\b|\brequire\(|node:/);
});

test('loading a checkpoint and predicting takes at most 40 KB', async () => {
  const code = await bundle(`
    import { dense, fullHead, hypernet, key, relu, serial, setEncoder, tensor } from 'weightloom';
    import { readSafetensors } from 'weightloom/io';
    import { unpackParams } from 'weightloom/meta';
    import { init } from 'weightloom/predict';
    export async function predict(file: Uint8Array, x: Float32Array, y: Float32Array, at: Float32Array) {
      await init();
      const net = hypernet({
        target: serial(dense(40), relu, dense(40), relu, dense(1)),
        inShape: [1],
        condition: setEncoder([64, 64]),
        trunk: dense(64),
        head: fullHead({ base: true }),
      });
      const params = unpackParams(net.init(key(0)), readSafetensors(file), 'the checkpoint');
      const rows = (values: Float32Array) => tensor(values, [1, values.length, 1]);
      const theta = net.generate(params, net.encode(params, { x: rows(x), y: rows(y) }));
      return net.target.apply(theta, rows(at)).data();
    }`);
  expect(size(code)).toBeLessThanOrEqual(40 * KB);
});

test('a bundle for Node alone is refused', async () => {
  await expect(bundle(`export * from 'weightloom/node';`)).rejects.toThrow(/node:fs/);
});
